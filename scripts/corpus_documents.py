"""Documents of the training corpus: the prepared files, what is held out, and text ready for the tokenizer."""

import gzip
import random
from dataclasses import dataclass
from pathlib import Path

SEPARATOR = "\n\n<|doc|>\n\n"
SHIPPABLE = ("digitalgov", "18f", "state_union", "inaugural", "quijote_es", "synthetic")  # CC0 or public domain
OTHER_KIND = "gum_ccby"  # held out as a whole: never trained on, the second evaluation text


@dataclass(frozen=True)
class Document:
    """One text with the name of its source file (without `.txt.gz`)."""

    source: str
    text: str


def read_corpus(folder: Path) -> list[Document]:
    """All documents of the `*.txt.gz` files in a folder, files in name order; raises FileNotFoundError if none."""
    files = sorted(folder.glob("*.txt.gz"))
    if not files:
        raise FileNotFoundError(f"no *.txt.gz in {folder}; scripts/build_corpus.py makes them")
    documents = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf8") as lines:
            documents += [Document(path.name.removesuffix(".txt.gz"), text) for text in lines.read().split(SEPARATOR)]
    return documents


def write_corpus(folder: Path, source: str, texts: list[str]) -> Path:
    """Write one source file, the same bytes for the same text (no time stamp inside); returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source}.txt.gz"
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as out:
        out.write(SEPARATOR.join(texts).encode("utf8"))
    return path


def hold_out(documents: list[Document], share: float = 0.05, seed: int = 0) -> tuple[list[Document], list[Document]]:
    """(train, held out): `share` of the documents of every source, at least one, and the whole of `OTHER_KIND`."""
    train, held = [], []
    for source in sorted({document.source for document in documents}):
        mine = [document for document in documents if document.source == source]
        random.Random(f"{seed}-{source}").shuffle(mine)
        count = len(mine) if source == OTHER_KIND else max(1, round(share * len(mine)))
        held += mine[:count]
        train += mine[count:]
    return train, held


def pieces(documents: list[Document], limit: int = 6000, seed: int = 1) -> list[Document]:
    """Documents cut at paragraphs into pieces of about `limit` characters, shuffled so that sources mix."""
    out = []
    for document in documents:
        current = ""
        for paragraph in document.text.split("\n\n"):
            if current and len(current) + len(paragraph) > limit:
                out.append(Document(document.source, current))
                current = ""
            current += ("\n\n" if current else "") + paragraph
        if current:
            out.append(Document(document.source, current))
    random.Random(seed).shuffle(out)
    return out


def with_chat(texts: list[str], share: float = 0.05, seed: int = 2) -> list[str]:
    """Wrap a share of the texts in the model's chat template (first paragraph as the user's turn)."""
    rng, out = random.Random(seed), []
    for text in texts:
        first, _, rest = text.partition("\n\n")
        chat = f"<|im_start|>user\n{first}<|im_end|>\n<|im_start|>assistant\n{rest}<|im_end|>\n"
        out.append(chat if rest and rng.random() < share else text)
    return out
