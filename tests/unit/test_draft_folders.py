"""Guesses of another folder, by Python and by the command line: the same text, and what cannot guess is refused."""

from pathlib import Path

import pytest

from legollm.checkpoints.loading import load
from legollm.checkpoints.state import save_model
from legollm.errors import ConfigError
from legollm.tokenizers import ByteTokenizer, CharTokenizer
from tiny_models import tiny_config, tiny_model
from walker import legollm

SIZES = {"vocab_size": 256, "max_seq_len": 64}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, arch, n_layers in (("large", "llama3", 2), ("small", "gpt2", 1)):
        sizes = SIZES | {"n_layers": n_layers}
        save_model(folder / name, tiny_model(arch, **sizes), arch, tiny_config(arch, **sizes), ByteTokenizer())
    letters = CharTokenizer()
    letters.train("ab")
    sizes = {"vocab_size": letters.vocab_size}
    save_model(folder / "other", tiny_model("bigram", **sizes), "bigram", tiny_config("bigram", **sizes), letters)
    return folder


def test_a_draft_changes_no_text(home: Path) -> None:
    for engine in ("torch", "cpu"):
        if engine == "cpu":
            pytest.importorskip("numba")
        lm = load(home / "large", engine=engine)
        alone = lm.generate("ab ab", temperature=0, max_new_tokens=30)
        ids = list(lm.stream("ab ab", as_ids=True, temperature=0, max_new_tokens=30))
        for draft in (str(home / "small"), str(home / "large"), "prompt"):
            settings = {"temperature": 0, "max_new_tokens": 30, "draft": draft, "adapt": False}
            assert lm.generate("ab ab", **settings) == alone
            assert "".join(lm.stream("ab ab", **settings)) == alone
            assert list(lm.stream("ab ab", as_ids=True, **settings)) == ids
        assert set(lm.drafts) == {str(home / "small"), str(home / "large")}


def test_the_command_line_tells_how_the_guesses_went(home: Path) -> None:
    words = ("generate", str(home / "large"), "ab ab", "engine=torch", "temperature=0", "max_new_tokens=20", "--json")
    alone = legollm(*words).json
    found = legollm(*words, f"draft={home / 'large'}", "lookahead=4", "adapt=false").json
    assert found.pop("speculation") == {
        "n_guessed": 15,  # the first token follows from the prompt, the last of each run from its check
        "n_accepted": 15,
        "acceptance": 1.0,
        "accepted_lengths": [0, 0, 0, 1, 3],
        "speed_up": None,  # there was no plain step to compare with
    }
    assert found == alone


def test_other_vocabularies_are_refused(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"draft: .*other has another tokenizer \(2 ids\) than .*large \(256 ids\)"):
        load(home / "large").generate("ab", draft=str(home / "other"))
    said = legollm("generate", str(home / "large"), "ab", f"draft={home / 'other'}", status=2)
    assert "so its guesses mean something else" in said.err
    assert "lookahead: found 0" in legollm("generate", str(home / "large"), "ab", "lookahead=0", status=2).err


def test_the_likeliest_answer_is_searched_for_by_the_command_line_and_in_python(home: Path) -> None:
    lm = load(home / "large", engine="torch")
    text = lm.generate("ab ab", beams=3, length_penalty=0.5, max_new_tokens=12)
    words = ("generate", str(home / "large"), "ab ab", "engine=torch", "max_new_tokens=12", "beams=3", "--json")
    assert legollm(*words, "length_penalty=0.5", "seed=5").json["text"] == text
    said = legollm(*words, "draft=prompt", status=2)
    assert "beams: a search has no use for guesses" in said.err
    assert "beams: found 0" in legollm(*words[:-2], "beams=0", status=2).err
