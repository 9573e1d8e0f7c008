"""Cleaning of the public sources: Markdown posts, tokenised Wikipedia, hard-wrapped prose, treebank sentences."""

import html
import re

_MONTHS = "January February March April May June July August September October November December".split()
_MARKDOWN = tuple(
    (re.compile(pattern, flags), new)
    for pattern, flags, new in (
        (r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.S, ""),  # templates
        (r"```.*?```", re.S, ""),
        (r"!\[[^\]]*\]\([^)]*\)", 0, ""),  # images
        (r"\[([^\]]*)\]\([^)]*\)", 0, r"\1"),  # links keep their text
        (r"\[([^\]]*)\]\[[^\]]*\]", 0, r"\1"),
        (r"<(script|style).*?</\1>", re.S | re.I, ""),
        (r"<[^>]+>", 0, ""),
    )
)
_AFTER_ENTITIES = tuple(
    (re.compile(pattern, re.M), new)
    for pattern, new in (
        (r"^\[[^\]]*\]:.*$|^\s*[-*_|:]{3,}\s*$|^\s*\|.*$", ""),  # link targets, rules, tables
        (r"https?://\S+", ""),
        (r"\*\*|__|`", ""),
        (r"(?<!\w)\*([^*\n]+)\*", r"\1"),
        (r"^#+ *", ""),
        (r"^(\s*)[*+] +", r"\1- "),
        (r"[ \t\xa0]+", " "),
        (r"\n{3,}", "\n\n"),
    )
)
_WIKITEXT = (
    (r" ([.,;:!?%)\]])", r"\1"),
    (r"([(\[$£#]) ", r"\1"),
    (r" ('s|n't|'re|'ve|'ll|'d|'m)\b", r"\1"),
    (r'" ([^"]*?) "', r'"\1"'),
    (r"s ' ", "s' "),
)


def _front_matter(text: str) -> tuple[str, str]:
    """(title and date line, body) of a post with YAML front matter."""
    if not text.startswith("---"):
        return "", text
    end = text.find("\n---", 3)
    if end < 0:
        return "", text
    head, body = text[:end], text[end + 4 :]
    title = re.search(r"^title: *['\"]?(.*?)['\"]?$", head, re.M)
    date = re.search(r"^date: *['\"]?(\d{4})-(\d\d)-(\d\d)", head, re.M)
    line = title[1] if title else ""
    if date:
        line += f"\n\n{_MONTHS[int(date[2]) - 1]} {int(date[3])}, {date[1]}"
    return line, body


def markdown(text: str, least: int = 400) -> str:
    """Plain paragraphs of a Markdown post, title and date first; empty if shorter than `least` characters."""
    title, body = _front_matter(text.replace("\r", ""))
    for pattern, new in _MARKDOWN:
        body = pattern.sub(new, body)
    body = html.unescape(body)
    for pattern, new in _AFTER_ENTITIES:
        body = pattern.sub(new, body)
    text = f"{title}\n\n{body}".strip()
    return text if len(text) > least else ""


def wikitext(text: str) -> list[str]:
    """Articles of tokenised wikitext-2 with its tokenisation undone; sentences with `<unk>` are dropped."""
    for mark, char in ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")):
        text = text.replace(mark, char)
    articles: list[list[str]] = [[]]
    for raw in text.split("\n"):
        line = raw.strip()
        if re.match(r"^= [^=].* =$", line):
            articles.append([])
        if not line or line.startswith("="):
            continue
        if "<unk>" in line:
            line = " ".join(part for part in re.split(r"(?<= \.) ", line) if "<unk>" not in part)
        for pattern, new in _WIKITEXT:
            line = re.sub(pattern, new, line)
        if len(line) > 80:
            articles[-1].append(line)
    return ["\n\n".join(article) for article in articles if article]


def paragraphs(text: str, least: int = 60) -> list[str]:
    """Paragraphs of hard-wrapped prose, each on one line."""
    blocks = re.split(r"\n\s*\n", text.replace("\r", "").lstrip("\ufeff"))
    return [re.sub(r"\s+", " ", block).strip() for block in blocks if len(block) > least]


def sentences(conllu: str) -> list[str]:
    """The `# text` lines of a CoNLL-U treebank file; its annotation is not used."""
    return [re.sub(r"\s+", " ", line) for line in re.findall(r"^# text = (.*)$", conllu, re.M)]


def grouped(parts: list[str], size: int) -> list[str]:
    """Documents of `size` parts each, separated by blank lines."""
    return ["\n\n".join(parts[i : i + size]) for i in range(0, len(parts), size)]


def tidy(documents: list[str], least: int = 150) -> list[str]:
    """Single spaces, no surrounding space, no document shorter than `least` characters."""
    return [text for text in (re.sub(r"[ \t]+", " ", document).strip() for document in documents) if len(text) > least]
