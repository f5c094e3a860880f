"""How a model's own folder says that a text begins."""

from collections.abc import Mapping

from legollm.checkpoints.gguf_tokenizer import starts_with_bos
from legollm.checkpoints.loading import END_OF_TEXT, Loaded, text_folder
from legollm.checkpoints.reader import inside, read_json
from legollm.evaluation.prompts import Prompts


def prompts_of(lm: Loaded) -> Prompts:
    """Texts as the model reads them: what stands before them is `bos_token` of tokenizer_config.json, or else the token
    that ends a text, since a new one follows it; before every text where tokenizer.json says so.

    Raises:
        CheckpointError: the folder has no tokenizer.
    """
    tokenizer = lm.text_side()
    folder = text_folder(lm.folder, lm.base)
    path = inside(folder, "tokenizer_config.json")
    roles = read_json(path) if path.exists() else {}
    for said in (roles.get("bos_token"), roles.get("eos_token"), END_OF_TEXT):
        name = said.get("content") if isinstance(said, Mapping) else said  # both forms are found
        if isinstance(name, str) and name in tokenizer.special_tokens:
            return Prompts(tokenizer, tokenizer.special_tokens[name], starts_with_bos(folder))
    return Prompts(tokenizer)
