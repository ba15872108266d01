"""YAML as people wrote it: an item is put in front of a list, and every other byte stays. Pure.

PyYAML says where things stand; what is written is read again, and must mean what it should.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from peer.setup.contract import SetupRefused

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(text: str, path: str) -> dict[str, Any]:
    """The mapping of a file; an empty file is an empty one. Raises SetupRefused."""
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise SetupRefused(f"{path}: not YAML ({said[:200]}): mend it first, its program refuses it too") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SetupRefused(f"{path}: expected a mapping: mend it first")
    return found


def put_first(text: str, keys: Sequence[str], item: str, path: str) -> str:
    """The list below these keys has `item` in front; what is missing on the way is made. Raises SetupRefused."""
    wanted = copy.deepcopy(parse(text, path))
    _expect(wanted, keys, item, path)
    after = _inserted(text, list(keys), item)
    if parse(after, path) != wanted:
        raise SetupRefused(f"{path}: put {json.dumps(item)} in front of {'.'.join(keys)} by hand; it is too unusual")
    return after


def _expect(tree: dict[str, Any], keys: Sequence[str], item: str, path: str) -> None:
    for key in keys[:-1]:
        if tree.get(key) is None:
            tree[key] = {}
        tree = tree[key]
        if not isinstance(tree, dict):
            raise SetupRefused(f"{path}: {key}: expected a mapping: mend it first")
    items = tree.get(keys[-1]) or []
    if not isinstance(items, list):
        raise SetupRefused(f"{path}: {keys[-1]}: expected a list: mend it first")
    tree[keys[-1]] = [item, *items]


def _inserted(text: str, keys: list[str], item: str) -> str:
    import yaml

    newline = "\r\n" if "\r\n" in text else "\n"
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return _ended(text, newline) + _block(keys, item, 0, newline)
    above: Any = None
    while keys and isinstance(node, yaml.MappingNode):
        found = next(((key, value) for key, value in node.value if key.value == keys[0]), None)
        if found is None:
            return _into_mapping(text, node, keys, item, newline)
        above, node = found
        keys = keys[1:]
    if isinstance(node, yaml.SequenceNode):
        return _into_list(text, node, item, newline)
    # Nothing stands there, or null.
    text = str(text[: node.start_mark.index] + text[node.end_mark.index :])
    if above is None:
        return _ended(text, newline) + _block(keys, item, 0, newline)
    end = text.find("\n", above.end_mark.index)
    line, rest = (_ended(text, newline), "") if end < 0 else (text[: end + 1], text[end + 1 :])
    return line + _block(keys, item, above.start_mark.column + 2, newline) + rest


def _into_mapping(text: str, node: Any, keys: list[str], item: str, newline: str) -> str:
    start = node.start_mark
    if node.flow_style:
        at = start.index + 1
        return text[:at] + _flow(keys, item) + (", " if node.value else "") + text[at:]
    at = start.index - start.column
    return text[:at] + _block(keys, item, start.column, newline) + text[at:]


def _into_list(text: str, node: Any, item: str, newline: str) -> str:
    start = node.start_mark
    if node.flow_style:
        at = start.index + 1
        return text[:at] + json.dumps(item) + (", " if node.value else "") + text[at:]
    at = start.index - start.column
    return text[:at] + " " * int(start.column) + f"- {json.dumps(item)}{newline}" + text[at:]


def _block(keys: Sequence[str], item: str, column: int, newline: str) -> str:
    """The keys one below the other, and the list with its one item."""
    names = [" " * (column + 2 * depth) + f"{_key(key)}:" for depth, key in enumerate(keys)]
    return newline.join((*names, " " * (column + 2 * len(keys)) + f"- {json.dumps(item)}", ""))


def _flow(keys: Sequence[str], item: str) -> str:
    text = f"[{json.dumps(item)}]"
    for depth, key in enumerate(reversed(keys)):
        text = f"{_key(key)}: {text}"
        if depth < len(keys) - 1:
            text = f"{{{text}}}"
    return text


def _key(key: str) -> str:
    return key if key.isalpha() else json.dumps(key)


def _ended(text: str, newline: str) -> str:
    return text if not text or text.endswith("\n") else text + newline
