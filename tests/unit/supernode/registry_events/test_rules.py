"""Which tags are brought to which nodes."""

from __future__ import annotations

import pytest

from proto.errors import ConfigError
from supernode.registry_events.rules import Rule, rule_of, rules_of

APPS = Rule("apps", ("r.example/team/*",), ("v*", "latest"))
ALL = Rule("all", ("r.example/*", "docker.io/library/debian"))


@pytest.mark.parametrize(
    ("repository", "tag", "found"),
    [
        ("r.example/team/app", "v1", APPS),
        ("r.example/team/sub/app", "latest", APPS),
        ("r.example/team/app", "test", ALL),
        ("r.example/other", "v1", ALL),
        ("docker.io/library/debian", "12", ALL),
        ("docker.io/library/debian-slim", "12", None),
        ("other.example/team/app", "v1", None),
    ],
)
def test_the_first_rule_that_means_a_tag_counts(repository: str, tag: str, found: Rule | None) -> None:
    assert rule_of([APPS, ALL], repository, tag) == found


def test_rules_are_read_from_sections_with_registries_in_one_spelling() -> None:
    section = {"repositories": ["Index.Docker.IO/library/*"], "platforms": ["linux/amd64"], "to": "zone=eu"}
    assert rules_of({"base": section}) == (Rule("base", ("docker.io/library/*",), ("*",), ("linux/amd64",), "zone=eu"),)
    assert rules_of({"five": {"repositories": ["r.example/a"], "to": 5}})[0].to == "5"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "repositories"),
        ({"repositories": "r.example/a"}, "array"),
        ({"repositories": ["a" * 300]}, "array"),
        ({"repositories": ["app"]}, "REGISTRY/NAME"),
        ({"repositories": ["*.example/app"]}, "REGISTRY/NAME"),
        ({"repositories": ["r.example/a"], "tags": [5]}, "tags"),
        ({"repositories": ["r.example/a"], "platforms": ["linux"]}, "OS/ARCHITECTURE"),
        ({"repositories": ["r.example/a"], "to": "some"}, "expected all"),
        ({"repositories": ["r.example/a"], "zone": "eu"}, "unknown key 'zone'"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused_by_name(section: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=r'^\[preheat."x"\]: ') as refused:
        rules_of({"x": section})
    assert said in str(refused.value)
