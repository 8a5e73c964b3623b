"""The exception tree, by who must act. Anything else that is raised is a bug of ours and keeps its traceback,
except an OSError that names a path: cli puts it into words.

GristmillError
├── RecipeError      edit the recipe or the command line          exit code 2
├── DataError        look at a file or record (the text says which)        1
├── ArtifactError    make, repair or remake an artefact                    1
├── MissingExtra     install an optional dependency                        1
├── ResourceError    free memory, disk or a device, then run again        75
└── Interrupted      nothing to do: the state was saved; run again       143 (or 130 after Ctrl-C)
"""

from __future__ import annotations


class GristmillError(Exception):
    """Base of every error that a person can act on; `exit_code` is what the command line returns."""

    exit_code: int = 1


class RecipeError(GristmillError):
    """The recipe or the command line asks for something that cannot be."""

    exit_code = 2


class DataError(GristmillError):
    """A file or record is not what it should be."""


class ArtifactError(GristmillError):
    """An artefact is missing, incomplete, damaged or no longer matches the recipe."""


class MissingExtra(GristmillError):
    """An optional dependency is not installed."""


class ResourceError(GristmillError):
    """The machine ran out of something; the last good state is intact and the same command resumes from there."""

    exit_code = 75


class Interrupted(GristmillError):
    """A signal asked us to stop and the state was saved."""

    def __init__(self, message: str, *, signal_number: int = 15) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as shells report it
