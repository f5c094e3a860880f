"""The ids of a conversation equal those that transformers makes of the folder we write."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from legollm.data.chat import SPECIAL_TOKENS, Message, encode_chat, encode_example
from legollm.data.templates import TEMPLATES, template_of_folder
from legollm.tokenizers import RegexBPETokenizer, save_to_folder

transformers = pytest.importorskip("transformers")

TEXT = "The key is in the box. Where is the key? Mira put it under the mat, and it's still there.\n" * 20

CHATS = [
    [("user", "Where is the key?")],
    [("system", "Answer in one word."), ("user", "Where is it?"), ("assistant", "Under the mat."), ("user", "Still?")],
    [("user", "  spaces around \n\n"), ("assistant", ""), ("user", "é 猫 🐈 \t'll")],
    [("user", "a < b | c > d and <|not a token|> {{ jinja }} {% raw %}")],
    [("user", "Look."), ("assistant", "box()"), ("tool", "a key"), ("tool", "a mat"), ("assistant", "A key.")],
]

TRIMMED = (
    "{% for m in messages %}\n    {%- if m['role'] == 'system' %}\n"
    "<|im_start|>{{ m.content | trim }}<|im_end|>\n"
    "    {%- else %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n    {%- endif %}\n{% endfor %}\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}\n"
)
LLAMA_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LAYOUTS = {**TEMPLATES, "trimmed": TRIMMED}


class Both(NamedTuple):
    """One vocabulary, read by us and by them."""

    ours: RegexBPETokenizer
    theirs: Any


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    tokenizer = RegexBPETokenizer(pattern="gpt4")
    tokenizer.train(TEXT, vocab_size=320, special_tokens=[*SPECIAL_TOKENS, *LLAMA_TOKENS])
    folder = tmp_path_factory.mktemp("tokenizer")
    save_to_folder(tokenizer, folder, eos="<|im_end|>", chat_template=TRIMMED)
    return Both(tokenizer, transformers.AutoTokenizer.from_pretrained(folder))


def turns(chat: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in chat]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_ids_equal_transformers(both: Both, name: str, add_generation_prompt: bool) -> None:
    asked = {"add_generation_prompt": add_generation_prompt, "chat_template": LAYOUTS[name], "return_dict": False}
    for chat in CHATS:
        ours = encode_chat(
            both.ours,
            [Message(*turn) for turn in chat],
            LAYOUTS[name],
            add_generation_prompt=add_generation_prompt,
        )
        assert ours == list(both.theirs.apply_chat_template(turns(chat), **asked))


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_learned_equals_what_transformers_takes_for_the_assistants(both: Both, name: str) -> None:
    for chat in CHATS:
        found = both.theirs.apply_chat_template(
            turns(chat), chat_template=TEMPLATES[name], return_dict=True, return_assistant_tokens_mask=True
        )
        ids, written = encode_example(both.ours, [Message(*turn) for turn in chat], TEMPLATES[name])
        assert ids == list(found["input_ids"])
        assert list(map(int, written)) == list(found["assistant_masks"])


def test_a_template_of_a_folder_gives_the_same_here_and_there(both: Both, tmp_path: Path) -> None:
    """Also one that calls special tokens by their roles."""
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    save_to_folder(both.ours, tmp_path, bos="<|begin_of_text|>", eos="<|eot_id|>", chat_template=template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    whole = template_of_folder(tmp_path / "chat_template.jinja", config)
    assert whole is not None
    for chat in CHATS:
        ours = encode_chat(both.ours, [Message(*turn) for turn in chat], whole)
        assert ours == list(theirs.apply_chat_template(turns(chat), return_dict=False))
        assert ours == list(theirs.apply_chat_template(turns(chat), chat_template=whole, return_dict=False))
