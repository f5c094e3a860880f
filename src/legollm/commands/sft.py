"""`legollm sft`: a base model and conversations -> a model that answers. The same loop, with masked targets."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from legollm.checkpoints.loading import load
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.start_from import prepare
from legollm.config import Resolved
from legollm.data import world
from legollm.data.chat import Message, encode_example, end_of_turn
from legollm.data.conversations import FormatName, read_conversations
from legollm.data.templates import template_for
from legollm.errors import ConfigError, DataError
from legollm.finetuning.sft import Example, ExampleBatches, in_order, packed
from legollm.interfaces import Tokenizer
from legollm.team import ALONE, Team
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig


@dataclass(frozen=True, kw_only=True)
class ConversationConfig:
    """Where the conversations come from."""

    source: str = "world"
    """A file of conversations, .jsonl or a .json list; or world: questions about stories."""
    format: FormatName = "auto"
    """What its rows are: messages, prompt, question, alpaca, sharegpt, preference; auto sees it by their fields."""
    template: str | None = None
    """How they are laid out: chatml, qwen, llama3, alpaca, plain, or a file with a chat template. Null takes the
    model's own, and chatml where it has none."""
    rows: Literal["padded", "packed"] = "padded"
    """padded: a conversation a row, as long as the longest of its batch. packed: as many as fit into a row of
    train.seq_len behind a mask that keeps them apart; fewer columns are empty, and a batch has more conversations."""
    n_examples: int = 8000
    """world: how many stories to train on."""
    n_turns: int = 3
    """world: questions about each story."""
    val_fraction: float = 0.05
    """Share of a file's conversations that is kept for validation."""
    n_val: int = 200
    """Conversations to validate on at most."""

    def __post_init__(self) -> None:
        for name in ("n_examples", "n_turns", "n_val"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, found {getattr(self, name)}")
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"val_fraction: a share between 0 and 1, found {self.val_fraction}")


@dataclass(frozen=True, kw_only=True)
class SftRun:
    """A whole fine-tuning run."""

    model: Path = Path("runs/train/checkpoint")
    """The base model: a checkpoint or run folder, or a Hugging Face folder."""
    run: Path = Path("runs/sft")
    """The run's folder."""
    seed: int = 1337
    """Decides the order of the conversations and dropout."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: ConversationConfig = field(default_factory=ConversationConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the model that stand still, by name, such as embed,blocks.0; all_but_last_2 is all blocks but two."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-4, warmup_steps=20))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(max_steps=300, eval_every=100, save_every=100))


def sft(run: Resolved[SftRun]) -> None:
    """Fine-tune a model on conversations: the loss counts the assistant's words and the token that ends them.

    legollm sft model=runs/train data.source=answers.jsonl run=runs/answers
    """
    cfg = run.value
    with team_of(cfg) as team:
        state = finetune(cfg, team)
        print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} target tokens, {state.seconds:.0f} s of training")
        print(f"next: legollm chat {cfg.run}/checkpoint")


def finetune(cfg: SftRun, team: Team = ALONE, **view: Any) -> TrainState:
    """The whole run, by the processes of a team; the demo calls it, too."""
    open_run(cfg.run, cfg, cfg.resume, team)
    base = load(cfg.model)
    tokenizer = base.text_side()
    start = prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed)
    template = template_for(tokenizer, cfg.data.template, base.chat_template)
    eos = tokenizer.decode([end_of_turn(tokenizer, template)])
    max_len = row_length(cfg, base.config.max_seq_len)
    train, val = (
        [encoded(messages, tokenizer, template, max_len) for messages in part] for part in conversations(cfg.data)
    )
    source = ExampleBatches if cfg.data.rows == "padded" else packed
    batches = source(train, cfg.train.batch_size, seed=cfg.seed, max_len=max_len, rank=team.rank, world_size=team.size)
    job = Job(
        folder=cfg.run,
        arch=base.arch,
        model_config=base.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=NextToken(),
        batches=batches,
        figures=batches.figures,
        validation=lambda n: in_order(val, cfg.train.batch_size, max_len=max_len),
        optim=cfg.optim,
        train=cfg.train,
        seed=cfg.seed,
        resume=cfg.resume,
        tokenizer_files={"chat_template": template, "eos": eos},
        team=team,
        **view,
    )
    return fit(job)


def row_length(cfg: SftRun, max_seq_len: int) -> int:
    """Tokens of a row at most.

    Raises:
        ConfigError: more than the model reads.
    """
    seq_len = cfg.train.seq_len or max_seq_len
    if seq_len > max_seq_len:
        raise ConfigError(f"train.seq_len: {seq_len} is more than the {max_seq_len} tokens that the model reads")
    return seq_len


def encoded(messages: Sequence[Message], tokenizer: Tokenizer, template: str, max_len: int) -> Example:
    """A conversation as ids.

    Raises:
        DataError: more of them than the model reads.
    """
    example = Example(*encode_example(tokenizer, messages, template))
    if len(example.ids) > max_len:
        raise DataError(
            f"the conversation that starts with {messages[0].content[:40]!r} has {len(example.ids)} tokens, a row "
            f"holds {max_len}; shorten it, set train.seq_len larger, or train a base model with a larger "
            "model.max_seq_len"
        )
    return example


def conversations(cfg: ConversationConfig) -> tuple[list[list[Message]], list[list[Message]]]:
    """Those to train on and those to validate on.

    Raises:
        DataError: a row that is no conversation; names file and line.
    """
    if cfg.source == "world":
        train = world.conversations(0, 0, cfg.n_examples, n_questions=cfg.n_turns, split="train")
        val = islice(world.conversations(0, 0, 100 * cfg.n_val, n_questions=cfg.n_turns, split="val"), cfg.n_val)
        return [as_messages(asked) for asked in train], [as_messages(asked) for asked in val]
    every = list(read_conversations(Path(cfg.source), cfg.format))
    if len(every) < 2:
        raise ConfigError(f"data.source: {cfg.source} has {len(every)} conversation; one to train on and one to check")
    n_val = max(1, min(cfg.n_val, int(cfg.val_fraction * len(every))))
    ranked = sorted(every, key=lambda messages: hashlib.sha256(repr(messages).encode()).digest())  # not by its place
    return ranked[n_val:], ranked[:n_val]


def as_messages(questions: Sequence[world.Question]) -> list[Message]:
    """Questions about one story, as somebody would ask them one after the other."""
    messages = []
    for i, question in enumerate(questions):
        asked = question.question if i else f"{question.context}\n{question.question}"
        messages += [Message("user", asked), Message("assistant", question.worked_answer)]
    return messages
