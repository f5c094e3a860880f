"""Public data sets: where each comes from, under which licence, and how its bytes are known to be the right ones."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """One file of a data set."""

    name: str
    """Under which it lies in the folder of its recipe."""
    url: str
    role: Literal["train", "val", "test"] = "train"
    """Test files are fetched but are no part of the corpus."""
    sha256: str | None = None
    """None where nobody has pinned it: then the hash seen is recorded beside the file."""
    n_bytes: int | None = None
    """Its exact size, where that is known."""
    max_bytes: int
    """More than this is refused while it is read."""
    redirect_hosts: tuple[str, ...] = ()
    """Hosts, with all below them, that the address may lead on to."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A public data set and what one must know to use it."""

    title: str
    licence: str
    citation: str
    files: tuple[RecipeFile, ...]
    separator: str | None = None
    """What stands between the documents of its text files."""


_GITHUB = "https://raw.githubusercontent.com"
_CHAR_RNN = f"{_GITHUB}/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
_FROM_SCRATCH = f"{_GITHUB}/rasbt/LLMs-from-scratch/28c65cdfbc3338e2e040016eea4b7fdf556e4d57"
_EXAMPLES = f"{_GITHUB}/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
_ALPACA = f"{_GITHUB}/tatsu-lab/stanford_alpaca/761dc5bfbdeeffa89b8bff5d038781a4055f796a"
_GSM8K = f"{_GITHUB}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
_STORIES = "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
_STORIES_HOSTS = ("huggingface.co", "hf.co")

RECIPES: dict[str, Recipe] = {
    "tiny_shakespeare": Recipe(
        title="Tiny Shakespeare, 1.1 MB of plays",
        licence="public domain",
        citation="Karpathy 2015, char-rnn; William Shakespeare",
        files=(
            RecipeFile(
                name="tinyshakespeare.txt",
                url=f"{_CHAR_RNN}/data/tinyshakespeare/input.txt",
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                n_bytes=1_115_394,
                max_bytes=1_115_394,
            ),
        ),
    ),
    "the_verdict": Recipe(
        title="The Verdict, a short story of 20 kB",
        licence="public domain",
        citation="Edith Wharton 1908",
        files=(
            RecipeFile(
                name="the-verdict.txt",
                url=f"{_FROM_SCRATCH}/ch02/01_main-chapter-code/the-verdict.txt",
                sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
                n_bytes=20_479,
                max_bytes=20_479,
            ),
        ),
    ),
    "tinystories": Recipe(
        title="TinyStories V2, 2.2 GB of short stories in the words of a small child",
        licence="CDLA-Sharing-1.0",
        citation="Eldan and Li 2023, arXiv:2305.07759",
        separator="\n<|endoftext|>\n",
        files=(
            RecipeFile(
                name="TinyStoriesV2-GPT4-train.txt",
                url=f"{_STORIES}/TinyStoriesV2-GPT4-train.txt",
                max_bytes=2_500_000_000,
                redirect_hosts=_STORIES_HOSTS,
            ),
            RecipeFile(
                name="TinyStoriesV2-GPT4-valid.txt",
                url=f"{_STORIES}/TinyStoriesV2-GPT4-valid.txt",
                role="val",
                max_bytes=50_000_000,
                redirect_hosts=_STORIES_HOSTS,
            ),
        ),
    ),
    "wikitext2": Recipe(
        title="WikiText-2, 13 MB of encyclopedia, cut into words, rare ones replaced by <unk>",
        licence="CC BY-SA 3.0",
        citation="Merity et al. 2016, arXiv:1609.07843",
        files=(
            RecipeFile(
                name="train.txt",
                url=f"{_EXAMPLES}/word_language_model/data/wikitext-2/train.txt",
                max_bytes=12_000_000,
            ),
            RecipeFile(
                name="valid.txt",
                url=f"{_EXAMPLES}/word_language_model/data/wikitext-2/valid.txt",
                role="val",
                sha256="f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
                n_bytes=1_121_681,
                max_bytes=1_121_681,
            ),
            RecipeFile(
                name="test.txt",
                url=f"{_EXAMPLES}/word_language_model/data/wikitext-2/test.txt",
                role="test",
                sha256="d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
                n_bytes=1_256_449,
                max_bytes=1_256_449,
            ),
        ),
    ),
    "alpaca": Recipe(
        title="Alpaca, 52,000 instructions with answers (for fine-tuning)",
        licence="CC BY-NC 4.0: not for commercial use",
        citation="Taori et al. 2023, Stanford Alpaca",
        files=(RecipeFile(name="alpaca_data.json", url=f"{_ALPACA}/alpaca_data.json", max_bytes=30_000_000),),
    ),
    "gsm8k": Recipe(
        title="GSM8K, 8,800 school problems with worked answers (for fine-tuning and as a test)",
        licence="MIT",
        citation="Cobbe et al. 2021, arXiv:2110.14168",
        files=(
            RecipeFile(
                name="train.jsonl",
                url=f"{_GSM8K}/grade_school_math/data/train.jsonl",
                sha256="17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
                n_bytes=4_166_206,
                max_bytes=4_166_206,
            ),
            RecipeFile(
                name="test.jsonl",
                url=f"{_GSM8K}/grade_school_math/data/test.jsonl",
                role="test",
                sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
                n_bytes=749_738,
                max_bytes=749_738,
            ),
        ),
    ),
}
"""Every data set that `legollm data get NAME` can fetch."""
