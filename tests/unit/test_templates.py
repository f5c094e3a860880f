"""The layouts, letter by letter; what is read before an answer is what was trained; what a tokenizer must have."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legollm.data.chat import Message, encode_chat, encode_example, end_of_turn
from legollm.data.templates import ENDS_OF_TEXT, TEMPLATES, template_for
from legollm.errors import DataError
from legollm.tokenizers import ByteTokenizer, RegexBPETokenizer

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTROL += ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def tokenizer_with(*specials: str) -> ByteTokenizer:
    tokenizer = ByteTokenizer()
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


TOKENIZER = tokenizer_with(*CONTROL)
CHAT = [
    Message("system", "Be brief."),
    Message("user", " Where? "),
    Message("assistant", "Here."),
    Message("tool", "a key"),
    Message("tool", "a mat"),
    Message("assistant", ""),
    Message("user", "Why?"),
]
GOLDEN = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Where? <|im_end|>\n<|im_start|>assistant\n"
    "Here.<|im_end|>\n<|im_start|>tool\na key<|im_end|>\n<|im_start|>tool\na mat<|im_end|>\n<|im_start|>assistant\n"
    "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "qwen": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Where? <|im_end|>\n<|im_start|>assistant\n"
    "Here.<|im_end|>\n<|im_start|>user\n<tool_response>\na key\n</tool_response>\n<tool_response>\na mat\n"
    "</tool_response><|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>"
    "user<|end_header_id|>\n\nWhere?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHere.<|eot_id|>"
    "<|start_header_id|>ipython<|end_header_id|>\n\na key<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n"
    "a mat<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "alpaca": "Be brief.\n\n### Instruction:\n Where? \n\n### Response:\nHere.<|endoftext|>\n\n### Input:\na key\n\n"
    "### Input:\na mat\n\n### Response:\n<|endoftext|>\n\n### Instruction:\nWhy?\n\n### Response:\n",
    "plain": "System:\nBe brief.\n\nUser:\n Where? \n\nAssistant:\nHere.<|endoftext|>\n\nTool:\na key\n\nTool:\na mat"
    "\n\nAssistant:\n<|endoftext|>\n\nUser:\nWhy?\n\nAssistant:\n",
}
ENDS = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot_id|>"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_letter_by_letter(name: str) -> None:
    template = template_for(TOKENIZER, name)
    ids = encode_chat(TOKENIZER, CHAT, template, add_generation_prompt=True)
    assert ids == TOKENIZER.encode(GOLDEN[name], allowed_special="all")
    end = TOKENIZER.special_tokens[ENDS.get(name, "<|endoftext|>")]
    assert end_of_turn(TOKENIZER, template) == end
    ids, written = encode_example(TOKENIZER, CHAT, template)
    learned = [i for i, wanted in zip(ids, written, strict=True) if wanted]
    assert learned == [*TOKENIZER.encode("Here."), end, end]


def test_qwen_always_sets_the_scene() -> None:
    qwen = template_for(TOKENIZER, "qwen")
    expected = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    assert TOKENIZER.decode(encode_chat(TOKENIZER, [Message("user", "Hi")], qwen)) == expected


def bpe() -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer(pattern="gpt4")
    text = "The key is in the box.\n\n\nWhere?\n Here, \n\n and  there.\n" * 20
    tokenizer.train(text, vocab_size=300, special_tokens=CONTROL)
    return tokenizer


BPE = bpe()
WORDS = st.text(st.sampled_from("ab \n\t.é<|>#:{}%🐈"), max_size=8)
TURNS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), WORDS), max_size=5)


@pytest.mark.parametrize("name", TEMPLATES)
@given(first=WORDS, more=TURNS, system=st.booleans())
@settings(deadline=None, max_examples=60)
def test_what_is_read_before_each_answer_is_what_was_trained(
    name: str, first: str, more: Sequence[Message], system: bool
) -> None:
    """Whatever white space the answer begins with, which could grow together with what stands in front of it."""
    chat = [*([Message("system", "Be brief.")] if system else []), Message("user", first), *more]
    template = template_for(BPE, name)
    ids, written = encode_example(BPE, chat, template)
    assert ids == encode_chat(BPE, chat, template)
    begins = [i for i, wanted in enumerate(written) if wanted and not written[i - 1]]
    places = [i for i, message in enumerate(chat) if message.role == "assistant"]
    assert len(begins) == len(places)
    for begin, i in zip(begins, places, strict=True):
        prompt = encode_chat(BPE, chat[:i], template, add_generation_prompt=True)
        assert ids[:begin] == prompt
        answer = chat[i].content.strip() if name == "llama3" else chat[i].content
        learned = [*BPE.encode(answer), end_of_turn(BPE, template)]
        assert ids[begin : begin + len(learned)] == learned
        assert written[begin : begin + len(learned) + 1] in ([True] * len(learned) + [False], [True] * len(learned))


@pytest.mark.parametrize("answer", ["Here.", "\n\nHere.", "", " ", "<|im_end|>"])
def test_a_template_without_marks_teaches_the_same(answer: str) -> None:
    """Told by what changes when a turn is added, in the process that runs templates of strangers."""
    chat = [Message("user", "Where?\n"), Message("assistant", answer), Message("user", "?"), Message("assistant", "a")]
    unmarked = TEMPLATES["chatml"].replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    assert encode_example(BPE, chat, unmarked) == encode_example(BPE, chat, TEMPLATES["chatml"])


def test_the_end_of_an_answer_is_learned_also_where_a_template_does_not_mark_it() -> None:
    narrow = TEMPLATES["chatml"].replace(
        "{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}",
        "{%- generation -%}{{- message.content -}}{%- endgeneration -%}{{- '<|im_end|>' -}}",
    )
    assert narrow != TEMPLATES["chatml"]
    chat = CHAT[:3]
    assert encode_example(TOKENIZER, chat, narrow) == encode_example(TOKENIZER, chat, TEMPLATES["chatml"])


@pytest.mark.parametrize(
    "endless",
    [
        "{% for m in messages %}{{ m.content }}\n{% endfor %}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
    ],
)
def test_a_template_that_ends_no_answer_is_not_learned_from(endless: str) -> None:
    for chat in (CHAT[:3], CHAT):
        with pytest.raises(DataError, match="ends no answer with a special token"):
            encode_example(TOKENIZER, chat, endless)


@pytest.mark.parametrize("name", ["alpaca", "plain"])
@pytest.mark.parametrize("end", ENDS_OF_TEXT)
def test_alpaca_and_plain_need_only_a_token_that_ends_a_text(name: str, end: str) -> None:
    tokenizer = tokenizer_with(end)
    template = template_for(tokenizer, name)
    assert tokenizer.decode([end_of_turn(tokenizer, template)]) == end
    ids = encode_chat(tokenizer, CHAT[1:3], template)
    assert [tokenizer.decode([i]) for i in ids if i >= 256] == [end]
    with pytest.raises(DataError, match=f"the template {name} ends an answer .* none of <.*; train it with <"):
        template_for(ByteTokenizer(), name)


@pytest.mark.parametrize("name", ENDS)
def test_what_a_tokenizer_lacks_is_named(name: str) -> None:
    tokenizer = tokenizer_with("<|endoftext|>")
    with pytest.raises(DataError, match=r"which the tokenizer does not have .* alpaca and plain need only"):
        encode_chat(tokenizer, CHAT, template_for(tokenizer, name))
