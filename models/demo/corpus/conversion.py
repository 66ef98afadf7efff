"""Unit conversion with whole results: powers of ten over a wide range, other factors over a short one."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.corpus.sample import Sample
from demo.corpus.surface import typed

SKILL = "conversion"


@dataclass(frozen=True, slots=True)
class Unit:
    """`symbol` is what answers use; `names` are what questions may use."""

    symbol: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """From one unit to another for the amounts in `amounts`; `convert` gives whole numbers for all of them."""

    source: Unit
    target: Unit
    amounts: range
    convert: Callable[[int], int]


KM = Unit("km", ("km", "kilometers", "kilometres"))
M = Unit("m", ("m", "meters", "metres"))
CM = Unit("cm", ("cm", "centimeters", "centimetres"))
MM = Unit("mm", ("mm", "millimeters", "millimetres"))
KG = Unit("kg", ("kg", "kilograms", "kilos"))
G = Unit("g", ("g", "grams"))
T = Unit("t", ("t", "tons", "tonnes"))
L = Unit("l", ("l", "liters", "litres"))
ML = Unit("ml", ("ml", "milliliters", "millilitres"))
KW = Unit("kW", ("kW", "kilowatts"))
W = Unit("W", ("W", "watts"))
H = Unit("h", ("h", "hours"))
MIN = Unit("min", ("min", "minutes"))
S = Unit("s", ("s", "seconds"))
DAYS = Unit("days", ("days",))
WEEKS = Unit("weeks", ("weeks",))
FT = Unit("ft", ("ft", "feet"))
INCH = Unit("in", ("inches",))
CELSIUS = Unit("°C", ("°C", "C", "celsius", "degrees celsius"))
FAHRENHEIT = Unit("°F", ("°F", "F", "fahrenheit", "degrees fahrenheit"))


def _pair(big: Unit, small: Unit, factor: int, largest: int) -> tuple[Rule, Rule]:
    """Both directions of a whole factor, up to `largest` of the bigger unit."""
    down = Rule(big, small, range(1, largest + 1), lambda amount: amount * factor)
    up = Rule(small, big, range(factor, factor * largest + 1, factor), lambda amount: amount // factor)
    return down, up


RULES: tuple[Rule, ...] = (
    *_pair(KM, M, 1000, 99),
    *_pair(M, CM, 100, 99),
    *_pair(CM, MM, 10, 99),
    *_pair(KG, G, 1000, 99),
    *_pair(T, KG, 1000, 99),
    *_pair(L, ML, 1000, 99),
    *_pair(KW, W, 1000, 99),
    *_pair(H, MIN, 60, 12),
    *_pair(MIN, S, 60, 12),
    *_pair(DAYS, H, 24, 10),
    *_pair(WEEKS, DAYS, 7, 12),
    *_pair(FT, INCH, 12, 12),
    Rule(CELSIUS, FAHRENHEIT, range(-20, 101, 5), lambda c: c * 9 // 5 + 32),
    Rule(FAHRENHEIT, CELSIUS, range(-4, 213, 9), lambda f: (f - 32) * 5 // 9),
)

_ASK = (
    "convert {n} {s} to {t}",
    "convert {n} {s} into {t}",
    "how many {t} are {n} {s}",
    "how many {t} are in {n} {s}",
    "how many {t} is {n} {s}",
    "what is {n} {s} in {t}",
    "what's {n} {s} in {t}",
    "{n} {s} in {t}",
    "{n} {s} to {t}",
    "change {n} {s} to {t}",
    "express {n} {s} in {t}",
    "I have {n} {s}, how much is that in {t}",
    "how much is {n} {s} in {t}",
    "can you convert {n} {s} to {t}",
    "please convert {n} {s} to {t}",
)


def fact(rng: Random) -> tuple[Rule, int]:
    """A rule and an amount to convert by it."""
    rule = rng.choice(RULES)
    return rule, rng.choice(rule.amounts)


def sample(rng: Random) -> Sample:
    """A question of this skill."""
    rule, amount = fact(rng)
    question = rng.choice(_ASK).format(n=amount, s=rng.choice(rule.source.names), t=rng.choice(rule.target.names))
    if rng.random() < 0.15:
        question = question.replace(f"{amount} ", f"{amount}", 1)  # "3km"
    answer = f"{amount} {rule.source.symbol} = {rule.convert(amount)} {rule.target.symbol}"
    return Sample(SKILL, typed(rng, question, "?"), answer, question)


def drill(rng: Random) -> tuple[str, str, str]:
    """A line of pure practice as (problem, result, key)."""
    rule, amount = fact(rng)
    problem = f"{amount} {rule.source.symbol} ="
    return problem, f" {rule.convert(amount)} {rule.target.symbol}", f"drill {problem} {rule.target.symbol}"
