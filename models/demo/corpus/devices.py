"""Commands for devices and machines, answered with a short reply and an action in JSON."""

import json
from random import Random

from demo.corpus.catalogue import DEVICES, HINTS, ROOMS, Device
from demo.corpus.sample import Sample
from demo.corpus.surface import polite, typed

SKILL = "devices"


def action_json(device: str, zone: str | None, action: str, value: int | None) -> str:
    """The action as compact JSON: device, zone (absent if none was named), action, value (absent if there is none)."""
    fields: dict[str, str | int | None] = {"device": device, "zone": zone, "action": action, "value": value}
    return json.dumps({name: field for name, field in fields.items() if field is not None}, separators=(",", ":"))


def _spoken(rng: Random, device: Device, zone: str | None) -> str:
    """The device and its place as a user names them."""
    noun = rng.choice(device.nouns)
    the = "the " if rng.random() < 0.85 else ""
    if zone is None:
        return the + noun
    if zone == "all":
        plural = noun if noun.endswith("s") else f"{noun}s"
        return rng.choice((f"all {plural}", f"all the {plural}", f"every {noun.removesuffix('s')}"))
    if zone.isdigit():
        return rng.choice((f"{noun} {zone}", f"{noun} {zone}", f"{noun} number {zone}", f"the {noun} {zone}"))
    if rng.random() < 0.6:
        return f"{the}{zone} {noun}"
    place = rng.choice(("in the", "in")) if zone in ROOMS else rng.choice(("at", "of", "on", "in"))
    return f"{the}{noun} {place} {zone}"


def _named(device: Device, zone: str | None) -> str:
    """The device and its place as the reply names them."""
    if zone is None:
        return f"the {device.name}"
    if zone == "all":
        return f"all {device.name if device.name.endswith('s') else device.name + 's'}"
    return f"{device.name} {zone}" if zone.isdigit() else f"the {zone} {device.name}"


def _place(rng: Random, device: Device) -> str | None:
    """Where a command applies: mostly a zone of the device's, else its number, all of its kind, or unsaid."""
    draw = rng.random()
    if draw < 0.12:
        return None
    if draw < 0.2:
        return "all"
    if draw < 0.3 and device.zones != ROOMS:
        return str(rng.randint(1, 9))
    return rng.choice(device.zones)


def sample(rng: Random) -> Sample:
    """A question of this skill."""
    if rng.random() < 0.07:
        remark, name, action_name, reply = rng.choice(HINTS)
        zone, degrees = rng.choice(ROOMS), rng.randint(5, 30)
        value = degrees if "{v}" in remark else None
        remark, reply = remark.format(z=zone, v=degrees), reply.format(z=zone, v=degrees)
        return Sample(SKILL, typed(rng, remark), f"{reply}\n{action_json(name, zone, action_name, value)}", remark)
    device = rng.choice(DEVICES)
    action = rng.choice(device.actions)
    place = _place(rng, device)
    value = rng.choice(action.values) if action.values else None
    command = rng.choice(action.wordings).format(it=_spoken(rng, device, place), v=value)
    reply = action.reply.format(it=_named(device, place), v=value)
    answer = f"{reply}\n{action_json(device.name, place, action.name, value)}"
    return Sample(SKILL, typed(rng, polite(rng, command)), answer, command)
