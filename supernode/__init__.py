"""The supernode service. Importing it checks that the package `proto` beside it is ours."""

try:
    from proto import LAYERCAST_VOCABULARY as _ours
except ImportError:
    # Another distribution has a package of this name: say so before an import fails somewhere inside.
    raise SystemExit(
        "layercast: the Python package 'proto' found first is not Layercast's: "
        "install Layercast in an environment of its own"
    ) from None

assert _ours
