"""The supernode service. Importing `peer` checks that the package `proto` beside it is ours."""

import peer  # noqa: F401
