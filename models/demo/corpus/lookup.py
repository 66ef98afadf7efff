"""Looking up a fact in a table that the prompt gives."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.corpus.sample import Sample
from demo.corpus.surface import choices

SKILL = "lookup"


@dataclass(frozen=True, slots=True)
class Topic:
    """What a table is about. Templates take {k}, the row's name, and {v}, its value.

    Answers name the row before its value: what was just written leads to the row.
    """

    title: str
    columns: tuple[str, str]
    names: tuple[str, ...]
    value: Callable[[Random], str]
    asks: tuple[str, ...]
    answer: str


_GOODS = choices(
    "tea; coffee; milk; bread; butter; cheese; apples; pears; rice; sugar; salt; pepper; honey; juice; water; "
    "soup; pasta; eggs; flour; oil; lemons; onions; beans; corn; nuts; laptop; mouse; screen; keyboard; phone; "
    "desk; chair; pen; paper; hammer; saw; drill; paint; rope; glue; shirt; shoes; hat; coat; book; bike; ticket; "
    "cake; pizza; wine; beer"
)
_PARTS = choices(
    "bolts; nuts; screws; washers; hinges; springs; gears; belts; bearings; cables; fuses; relays; switches; sensors; "
    "filters; hoses; clamps; pipes; valves; seals; motors; nails; rivets; plugs"
)
_PEOPLE = choices(
    "Anna; Ben; Clara; David; Emma; Felix; Grace; Henry; Ida; Jonas; Kate; Leo; Mia; Noah; Olga; Paul; Rosa; Sam; "
    "Tina; Victor"
)
_PLACES = choices(
    "kitchen; bedroom; office; garage; cellar; attic; hall; bathroom; garden; nursery; freezer; fridge; oven; boiler; "
    "lab; pump 1; pump 2; tank 1; tank 2; tank 3; motor 1; motor 2"
)
_CITIES = choices(
    "Oslo; Paris; Rome; Berlin; Madrid; Vienna; Prague; Lisbon; Dublin; Athens; London; Warsaw; Zurich; Milan; Lyon; "
    "Bonn"
)


_SYLLABLES = choices("ba; do; ka; lu; mi; no; pe; ra; si; ta; vo; ze; gor; lan; mar; tin; ver; zon; fil; ked")


def _invented(rng: Random) -> str:
    """A made-up name, so that looking up does not rest on known words."""
    return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3)))


def _number(low: int, high: int) -> Callable[[Random], str]:
    return lambda rng: str(rng.randint(low, high))


def _time(rng: Random) -> str:
    return f"{rng.randint(5, 23)}:{rng.randrange(0, 60, 5):02d}"


TOPICS = (
    Topic(
        "prices",
        ("item", "price"),
        _GOODS,
        _number(1, 99),
        ("how much is the {k}", "what does {k} cost", "what is the price of {k}", "price of {k}", "how much for {k}"),
        "The price of {k} is {v}.",
    ),
    Topic(
        "stock",
        ("part", "stock"),
        _PARTS,
        _number(0, 500),
        ("how many {k} are in stock", "how many {k} do we have", "stock of {k}", "how many {k} are left"),
        "The stock of {k} is {v}.",
    ),
    Topic(
        "temperatures",
        ("place", "temperature"),
        _PLACES,
        _number(2, 95),
        ("what is the temperature of the {k}", "how warm is the {k}", "temperature of {k}", "how hot is the {k}"),
        "The {k} is at {v} degrees.",
    ),
    Topic(
        "extensions",
        ("name", "extension"),
        _PEOPLE,
        _number(100, 999),
        ("what is the extension of {k}", "what is {k}'s extension", "how do I reach {k}", "extension of {k}"),
        "The extension of {k} is {v}.",
    ),
    Topic(
        "ages",
        ("name", "age"),
        _PEOPLE,
        _number(1, 99),
        ("how old is {k}", "what is the age of {k}", "what is {k}'s age", "age of {k}"),
        "The age of {k} is {v}.",
    ),
    Topic(
        "values",
        ("name", "value"),
        _GOODS + _PARTS,
        _number(0, 999),
        ("what is the value of {k}", "value of {k}", "what value has {k}", "what is {k}", "{k}"),
        "The value of {k} is {v}.",
    ),
    Topic(
        "departures",
        ("destination", "time"),
        _CITIES,
        _time,
        (
            "when does the train to {k} leave",
            "what time is the train to {k}",
            "departure to {k}",
            "when do I leave for {k}",
        ),
        "The train to {k} leaves at {v}.",
    ),
)


def _pairs(separator: str, end: str) -> Callable[[Topic, list[tuple[str, str]]], str]:
    return lambda topic, rows: end.join(f"{name}{separator}{value}" for name, value in rows)


def _markdown(topic: Topic, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {topic.columns[0]} | {topic.columns[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])


def _csv(topic: Topic, rows: list[tuple[str, str]]) -> str:
    return "\n".join([",".join(topic.columns)] + [f"{name},{value}" for name, value in rows])


FORMATS: tuple[Callable[[Topic, list[tuple[str, str]]], str], ...] = (
    _pairs(": ", "\n"),
    _pairs(": ", "\n"),
    _pairs(": ", ", "),
    _pairs(" ", ", "),
    _pairs(" = ", "\n"),
    _pairs(" - ", "\n"),
    _markdown,
    _csv,
)
_TITLES = ("{t}:", "Here are the {t}:", "Table of {t}:", "{t}", "These are the {t}.", "The {t} are:")


def conversation(rng: Random) -> list[Sample]:
    """A table with a first question about it, then further questions about the same table.

    The further ones rest on the first one's table, so they share its key.
    """
    topic = rng.choice(TOPICS)
    names = rng.sample(topic.names, rng.randint(2, 7))
    if topic.title in ("prices", "values") and rng.random() < 0.2:
        names = list(dict.fromkeys(_invented(rng) for _ in names))
    rows = [(name, topic.value(rng)) for name in names]
    table = rng.choice(FORMATS)(topic, rows)
    if rng.random() < 0.6:
        title = rng.choice(_TITLES).format(t=topic.title)
        table = f"{title[0].upper()}{title[1:]}\n{table}"
    asked = rng.sample(rows, min(len(rows), rng.randint(1, 4)))
    questions = [_typed(rng, rng.choice(topic.asks).format(k=name)) for name, _ in asked]
    prompt = f"{questions[0]}\n{table}" if rng.random() < 0.2 else f"{table}\n{questions[0]}"
    answers = [topic.answer.format(k=name, v=value) for name, value in asked]
    return [Sample(SKILL, *turn, prompt) for turn in zip([prompt, *questions[1:]], answers, strict=True)]


def _typed(rng: Random, ask: str) -> str:
    if rng.random() < 0.7:
        ask = ask[0].upper() + ask[1:]
    elif rng.random() < 0.3:
        ask = ask.lower()
    return ask + ("?" if rng.random() < 0.75 else "")


def sample(rng: Random) -> Sample:
    """A question of this skill, with its table."""
    return conversation(rng)[0]
