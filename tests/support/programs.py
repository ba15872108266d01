"""Where the programs are that tests run: what benchmarks.harness.programs has, under the name that tests use."""

from benchmarks.harness.programs import DEBIAN_PATH, PACKAGES, ProgramMissing, clean_environment, find_program, program

__all__ = ["DEBIAN_PATH", "PACKAGES", "ProgramMissing", "clean_environment", "find_program", "program"]
