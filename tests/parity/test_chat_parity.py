"""The ids of a conversation equal those that transformers makes of the folder we write."""

from pathlib import Path

import pytest

from legollm.data.chat import CHATML, SPECIAL_TOKENS, Message, encode_chat
from legollm.tokenizers import RegexBPETokenizer, save_to_folder

transformers = pytest.importorskip("transformers")

TEXT = "The key is in the box. Where is the key? Mira put it under the mat, and it's still there.\n" * 20

CHATS = [
    [("user", "Where is the key?")],
    [("system", "Answer in one word."), ("user", "Where is it?"), ("assistant", "Under the mat."), ("user", "Still?")],
    [("user", "  spaces around \n\n"), ("assistant", ""), ("user", "é 猫 🐈 \t'll")],
    [("user", "a < b | c > d and <|not a token|> {{ jinja }} {% raw %}")],
]

TEMPLATES = {
    "chatml": CHATML,
    "trimmed": "{% for m in messages %}\n    {%- if m['role'] == 'system' %}\n"
    "<|im_start|>{{ m.content | trim }}<|im_end|>\n"
    "    {%- else %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n    {%- endif %}\n{% endfor %}\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}\n",
}


@pytest.fixture(scope="module")
def tokenizer() -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer(pattern="gpt4")
    tokenizer.train(TEXT, vocab_size=320, special_tokens=list(SPECIAL_TOKENS))
    return tokenizer


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_ids_equal_transformers(
    tokenizer: RegexBPETokenizer, tmp_path: Path, name: str, chat: list[tuple[str, str]], add_generation_prompt: bool
) -> None:
    save_to_folder(tokenizer, tmp_path, eos="<|im_end|>", chat_template=TEMPLATES[name])
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    turns = [{"role": role, "content": content} for role, content in chat]
    expected = theirs.apply_chat_template(turns, add_generation_prompt=add_generation_prompt, return_dict=False)
    messages = [Message(*turn) for turn in chat]
    ours = encode_chat(tokenizer, messages, TEMPLATES[name], add_generation_prompt=add_generation_prompt)
    assert ours == list(expected)
