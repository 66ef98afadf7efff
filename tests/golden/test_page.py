"""docs/models.md says what the registry and the golden checkpoints say."""

from edgert_models.refused import NEEDS
from edgert_models.registry import all_architectures

from tests.golden.page import PAGE, goldens_of, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_every_family_has_a_golden_checkpoint() -> None:
    assert [architecture.title for architecture in all_architectures() if not goldens_of(architecture)] == []


def test_what_is_supported_is_not_refused() -> None:
    assert {name for architecture in all_architectures() for name in architecture.hf_classes} & set(NEEDS) == set()
