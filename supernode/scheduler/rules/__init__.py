"""The scheduling rules, one module each, numbered as in docs/scheduling.md.

They read and change the state and never call what is above them: matching, granting, the machine.
"""
