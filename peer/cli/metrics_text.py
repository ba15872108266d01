"""Our metrics as numbers by name and labels, and as people read them. Pure."""

from __future__ import annotations


def samples(text: str) -> dict[str, float]:
    """Of Prometheus text: what is Layercast's, by `NAME LABEL=VALUE,...`. Raises ValueError."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("layercast_") and not sample.name.endswith(("_created", "_bucket")):
                labels = ",".join(f"{name}={label}" for name, label in sorted(sample.labels.items()))
                found[f"{sample.name} {labels}".strip()] = sample.value
    return found


def shown(key: str, number: float) -> str:
    """A number as people read it: bytes with their unit."""
    return size(number) if "bytes" in key.partition(" ")[0] else f"{number:g}"


def size(number: float) -> str:
    """Bytes with their unit."""
    if number < 1024:
        return f"{number:g}"
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"
