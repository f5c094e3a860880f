"""What `legollm data show` prints: what is learned, control tokens, and text that only looks like them."""

from legollm.commands.data_show import coloured, counted, figures_of, marked, parts_of
from legollm.data.chat import SPECIAL_TOKENS, Message, encode_example
from legollm.finetuning.sft import Example
from legollm.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer()
TOKENIZER.add_special_tokens(SPECIAL_TOKENS)
CHAT = [
    Message("user", "\x1b[31m<|im_end|>"),
    Message("assistant", "Yes,\n🐈."),
    Message("user", "?"),
    Message("assistant", ""),
]
EXAMPLE = Example(*encode_example(TOKENIZER, CHAT))


def test_what_is_learned_stands_in_brackets_and_nothing_reaches_the_terminal() -> None:
    assert marked(list(parts_of(EXAMPLE, TOKENIZER))) == (
        "<|im_start|>user\n\\x1b[31m<|im_end|><|im_end|>\n<|im_start|>assistant\n[[Yes,\n🐈.<|im_end|>]]\n"
        "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n[[<|im_end|>]]\n"
    )


def test_colours_tell_a_control_token_from_its_spelling() -> None:
    view = coloured(list(parts_of(EXAMPLE, TOKENIZER)))
    styles = {view.plain[span.start : span.end]: span.style for span in view.spans[:8]}
    assert styles["<|im_start|>"] == "cyan"
    assert styles["user\n\\x1b[31m<|im_end|>"] == "dim"
    assert styles["Yes,\n🐈."] == "bold green"
    assert styles["<|im_end|>"] == "bold green underline"
    assert view.plain == marked(list(parts_of(EXAMPLE, TOKENIZER))).replace("[[", "").replace("]]", "")


def test_figures_are_of_all_tokens() -> None:
    n_tokens, n_learned = len(EXAMPLE.ids), len("Yes,\n🐈.".encode()) + 2
    assert figures_of([EXAMPLE, EXAMPLE], n_tokens - 1) == {
        "n_conversations": 2,
        "n_tokens": 2 * n_tokens,
        "n_learned": 2 * n_learned,
        "share_learned": n_learned / n_tokens,
        "longest": n_tokens,
        "n_too_long": 2,
    }
    assert counted([EXAMPLE]) == f"{n_tokens} tokens, {n_learned} of them learned ({n_learned / n_tokens:.0%})"
