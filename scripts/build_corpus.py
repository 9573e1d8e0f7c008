"""Build the text that the bundled SAE is trained on, from checkouts of public repositories.

    python scripts/build_corpus.py --checkouts DIR --out CORPUS

DIR holds one folder per repository, named as in `SOURCES` (owner+name), each a git checkout; nothing is fetched here.
A missing checkout is skipped with a line on the terminal. Licences: CORPUS.md beside this file. The synthetic lines
are written too; `train_default_sae.py --corpus CORPUS` takes the folder.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from corpus_cleaning import grouped, markdown, paragraphs, sentences, tidy, wikitext
from corpus_documents import read_corpus, write_corpus
from corpus_synthetic import synthetic_documents

_POSTS = re.compile(r"content/(news|resources|guides|_archived|events|communities|topics)")
_CC_BY_GENRES = re.compile(r"GUM_(news|interview|bio|voyage|textbook|speech|academic)_")


def _text(path: Path) -> str:
    """A file's text; the speeches mix UTF-8 and Windows encodings."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _files(root: Path, ending: str) -> list[tuple[str, Path]]:
    """(path inside the checkout, path) of all files with an ending, in name order."""
    return sorted((path.relative_to(root).as_posix(), path) for path in root.rglob(f"*{ending}") if path.is_file())


def digitalgov(root: Path) -> list[str]:
    """Posts and guides of digital.gov; redirect stubs are left out."""
    return [markdown(_text(path)) for name, path in _files(root, ".md") if _POSTS.match(name) and "301" not in name]


def eighteen_f(root: Path) -> list[str]:
    """Posts and guides of 18F."""
    return [markdown(_text(path)) for name, path in _files(root, ".md") if name.startswith("content")]


def speeches(folder: str) -> Callable[[Path], list[str]]:
    """A reader of one NLTK corpus of speeches, unpacked at packages/corpora/FOLDER or FOLDER."""

    def read(root: Path) -> list[str]:
        home = next((path for path in (root / "packages" / "corpora" / folder, root / folder) if path.is_dir()), None)
        if home is None:
            raise FileNotFoundError(f"{root} has no folder {folder}: unpack packages/corpora/{folder}.zip there")
        return ["\n\n".join(paragraphs(_text(path))) for path in sorted(home.glob("*.txt"))]

    return read


def quijote(root: Path) -> list[str]:
    """Don Quijote in documents of twelve paragraphs."""
    return grouped(paragraphs(_text(root / "data" / "donquijote.txt")), 12)


def spanish_gsd(root: Path) -> list[str]:
    """Modern Spanish sentences, twenty a document (they are unrelated to each other)."""
    parts = [sentences(_text(root / f"es_gsd-ud-{part}.conllu")) for part in ("dev", "test")]
    return grouped([sentence for part in parts for sentence in part], 20)


def gum(root: Path) -> list[str]:
    """The genres of GUM whose texts are CC BY, open textbooks or public domain."""
    return [
        " ".join(sentences(_text(path)))
        for name, path in _files(root, ".conllu")
        if _CC_BY_GENRES.search(Path(name).name)
    ]


def wikipedia(root: Path) -> list[str]:
    """Validation and test part of wikitext-2."""
    folder = root / "word_language_model" / "data" / "wikitext-2"
    return [article for part in ("valid", "test") for article in wikitext(_text(folder / f"{part}.txt"))]


SOURCES: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "digitalgov": ("GSA+digitalgov.gov", digitalgov),
    "18f": ("18F+18f.gsa.gov", eighteen_f),
    "state_union": ("nltk+nltk_data", speeches("state_union")),
    "inaugural": ("nltk+nltk_data", speeches("inaugural")),
    "quijote_es": ("ulmefors+LSTM-Text-Generator", quijote),
    "ud_spanish_gsd": ("UniversalDependencies+UD_Spanish-GSD", spanish_gsd),
    "gum_ccby": ("UniversalDependencies+UD_English-GUM", gum),
    "wikitext2_valid_test": ("pytorch+examples", wikipedia),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkouts", type=Path, required=True, help="folder with the repositories")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for name, (repository, read) in SOURCES.items():
        root = args.checkouts / repository
        if not root.is_dir():
            print(f"{name}: no checkout at {root}, left out")
            continue
        try:
            write_corpus(args.out, name, tidy(read(root)))
        except FileNotFoundError as missing:
            print(f"{name}: left out, {missing}")
    write_corpus(args.out, "synthetic", synthetic_documents())
    documents = read_corpus(args.out)
    for name in sorted({document.source for document in documents}):
        mine = [document.text for document in documents if document.source == name]
        print(f"{name}: {len(mine)} documents, {sum(map(len, mine)) / 1e6:.2f} million characters")


if __name__ == "__main__":
    main()
