"""Synthetic calendar and number lines, so that months, weekdays, number words and digits are well represented.

Public domain (CC0). Separators and templates vary on purpose: with one separator an SAE learns features for the
separator. No line equals an evaluation prompt (`is_evaluation_prompt` holds that; `synthetic_documents` filters).
"""

import random
import re
from collections.abc import Callable, Sequence

MONTHS = (
    "January February March April May June July August September October November December".split(),
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split(),
)
DAYS = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "lunes martes miércoles jueves viernes sábado domingo".split(),
)
NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty".split(),
    "uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte".split(),
)
SEPARATORS = (", ", ", ", ", ", " -> ", "\n", " ", "; ", " - ", " / ", " | ", " > ", "\n- ", ",\n")
HEADS = (
    ("", "", "", "In order: ", "List: ", "The sequence goes ", "We read ", "He counted: ", "On the wall: "),
    ("", "", "", "En orden: ", "Lista: ", "La serie es ", "Leímos ", "Contó: ", "En la pared: "),
)
THINGS = (
    ("apples", "letters", "chairs", "books", "miles", "students", "houses", "coins"),
    ("manzanas", "cartas", "sillas", "libros", "leguas", "alumnos", "casas", "monedas"),
)
NAMES = ("Anna", "James", "Maria", "Peter", "Lucía", "Carlos", "Elena", "Robert")
_EVALUATION = re.compile(
    r"^(\w+, ){3}\w+,$|^(\w+ -> ){3}\w+ ->$|[Tt]his month is .*next month is|"
    r"[Tt]his number is .*next number is|[Tt]oday is \w+, tomorrow is|If this is \w+, then the next"
)


def is_evaluation_prompt(line: str) -> bool:
    """True for a line that has the form of an evaluation prompt (a whole line of four items with a trailing mark)."""
    return bool(_EVALUATION.search(line.strip()))


def _sequence(rng: random.Random, language: int) -> list[str]:
    """A run of months, weekdays, number words or digits, up or down, 3-10 items."""
    kind, length = rng.choice("mmddnnni"), rng.randint(3, 10)
    if kind in "md":
        ring = (MONTHS if kind == "m" else DAYS)[language]
        start, step = rng.randrange(len(ring)), rng.choice((1, 1, 1, -1))
        return [ring[(start + step * i) % len(ring)] for i in range(length)]
    step = rng.choice((1, 1, 1, -1, 2))
    if kind == "n":
        words = NUMBERS[language]
        start = rng.randrange(len(words))
        run = [words[start + step * i] for i in range(length) if 0 <= start + step * i < len(words)]
        return run if len(run) > 2 else words[: max(length, 3)]
    start = rng.choice((rng.randint(1, 12), rng.randint(1, 90), rng.randint(1700, 2030)))
    return [str(max(start + step * i, 0)) for i in range(length)]


def _list_line(rng: random.Random, language: int) -> str:
    """A list with one of many separators, with or without a head and an end mark."""
    items, separator = _sequence(rng, language), rng.choice(SEPARATORS)
    if rng.random() < 0.15:
        items = [item.capitalize() if language == 0 else item for item in items]
    text = separator.join(items)
    if separator == ", " and rng.random() < 0.4:
        text = ", ".join(items[:-1]) + (" and " if language == 0 else " y ") + items[-1]
    return rng.choice(HEADS[language]) + text + rng.choice((".", ".", "", "...", ",", ";"))


def _after(ring: Sequence[str], index: int) -> tuple[str, str]:
    return ring[index % len(ring)], ring[(index + 1) % len(ring)]


def _english(rng: random.Random) -> str:
    month, after_month = _after(MONTHS[0], rng.randrange(12))
    day, after_day = _after(DAYS[0], rng.randrange(7))
    index = rng.randrange(19)
    number, after_number = NUMBERS[0][index], NUMBERS[0][index + 1]
    year, date, small, thing, name = (
        rng.randint(1780, 2030),
        rng.randint(1, 28),
        rng.randint(1, 99),
        rng.choice(THINGS[0]),
        rng.choice(NAMES),
    )
    return rng.choice(
        (
            f"After {month} comes {after_month}, and before {after_month} there was {month}.",
            f"Today is {day}, so tomorrow will be {after_day}.",
            f"If yesterday was {day}, today must be {after_day}.",
            f"{number.capitalize()} is followed by {after_number} when you count up.",
            f"{after_number.capitalize()} minus one is {number}; {number} plus one is {after_number}.",
            f"{name} left on {day}, {month} {date}, {year}, and came back in {after_month}.",
            f"The meeting on {month} {date} was moved to {day} at {small % 12 + 1} o'clock.",
            f"In {month} {year} they sold {number} {thing}; in {after_month}, {after_number}.",
            f"{name} has {number} {thing} and wants {after_number}.",
            f"It is open from {day} to {DAYS[0][rng.randrange(7)]} and closed on {after_day}.",
            f"{date} {month} {year}",
            f"{month} {date}, {year}",
            f"{year}-{date % 12 + 1:02d}-{date:02d}",
            f"{small} + {date} = {small + date}",
            f"{small}, {small + 1} and {small + 2} are three numbers in a row.",
            f"There were {number} of them in {month}, then {small} by {day}.",
            f"The shop is closed every {day} in {month} and {after_month}.",
            f"Page {small}, chapter {number}. Page {small + 1}, chapter {after_number}.",
            f"Between {month} and {after_month} of {year} it rained for {number} days.",
        )
    )


def _spanish(rng: random.Random) -> str:
    month, after_month = _after(MONTHS[1], rng.randrange(12))
    day, after_day = _after(DAYS[1], rng.randrange(7))
    index = rng.randrange(19)
    number, after_number = NUMBERS[1][index], NUMBERS[1][index + 1]
    year, date, small, thing, name = (
        rng.randint(1780, 2030),
        rng.randint(1, 28),
        rng.randint(1, 99),
        rng.choice(THINGS[1]),
        rng.choice(NAMES),
    )
    return rng.choice(
        (
            f"Después de {month} viene {after_month}, y antes de {after_month} estaba {month}.",
            f"Hoy es {day}, así que mañana será {after_day}.",
            f"Si ayer fue {day}, hoy tiene que ser {after_day}.",
            f"Al contar, al {number} le sigue el {after_number}.",
            f"{name} salió el {day} {date} de {month} de {year} y volvió en {after_month}.",
            f"La reunión del {date} de {month} pasó al {day} a las {small % 12 + 1}.",
            f"En {month} de {year} vendieron {number} {thing}; en {after_month}, {after_number}.",
            f"{name} tiene {number} {thing} y quiere {after_number}.",
            f"Abre de {day} a {DAYS[1][rng.randrange(7)]} y cierra el {after_day}.",
            f"{date} de {month} de {year}",
            f"{small}, {small + 1} y {small + 2} son tres números seguidos.",
            f"La tienda cierra cada {day} de {month} y de {after_month}.",
            f"Página {small}, capítulo {number}. Página {small + 1}, capítulo {after_number}.",
            f"Entre {month} y {after_month} de {year} llovió {number} días.",
        )
    )


def synthetic_documents(count: int = 900, lines: int = 13, seed: int = 0) -> list[str]:
    """`count` documents of `lines` lines, about 65 % English; deterministic for a seed."""
    rng, documents = random.Random(seed), []
    makers: tuple[Callable[[random.Random], str], ...] = (_english, _spanish)
    while len(documents) < count:
        language = int(rng.random() < 0.35)
        body: list[str] = []
        while len(body) < lines:
            line = _list_line(rng, language) if rng.random() < 0.45 else makers[language](rng)
            if not any(is_evaluation_prompt(part) for part in line.split("\n")):
                body.append(line)
        documents.append(rng.choice((" ", "\n", "\n", "\n\n")).join(body))
    return documents
