"""The files of a data set on the Hugging Face Hub: a revision resolved to its commit, and what lies there.

The Hub's own client lists and knows the account; the bytes come by `download.py` as all others do. HF_ENDPOINT, HF_TOKEN and
HF_HUB_OFFLINE count as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is its transport's
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
)
from huggingface_hub.hf_api import RepoFile

from gristmill.data.download import Wanted
from gristmill.data.patience import AGAIN, UnreachableError
from gristmill.errors import DataError

ANY_DEPTH = "**"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What there is at a commit. licence: as the data set's card has it, or None."""

    commit: str
    files: tuple[Wanted, ...]
    licence: str | None


def hub_client() -> HfApi:
    """The Hub's client, told to send nothing about this machine and to ask for nothing that nobody asked it for."""
    constants.HF_HUB_DISABLE_TELEMETRY = True
    return HfApi()


def list_dataset(
    dataset: str, revision: str, patterns: Sequence[str], *, timeout_seconds: float | None = None
) -> Listing:
    """The files that the patterns name, by name, at the commit that the revision is now.

    Raises DataError where the set, the revision or a file is not there or may not be read, UnreachableError where nobody answers.
    """
    api = hub_client()
    try:
        about = api.dataset_info(dataset, revision=revision, timeout=timeout_seconds)
        commit = about.sha or revision
        entries = api.list_repo_tree(dataset, recursive=True, revision=commit, repo_type="dataset")
        found = [entry for entry in entries if isinstance(entry, RepoFile)]
    except OfflineModeIsEnabled as error:
        raise UnreachableError(
            f"{dataset}: HF_HUB_OFFLINE is set, so the Hub is not asked. Unset it to fetch."
        ) from error
    except GatedRepoError as error:
        raise DataError(
            f"{dataset} is given to accounts that accepted its terms. Accept them on its page, then set HF_TOKEN or run `hf auth login`."
        ) from error
    except HFValidationError as error:
        raise DataError(f"{dataset!r} is no data set of the Hub: {_first_line(error)}") from error
    except (HTTPError, OSError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status is None or status in AGAIN:
            raise UnreachableError(
                f"the Hub does not answer for {dataset}: {_first_line(error)}\n  Run the same command again later."
            ) from error
        raise DataError(f"{dataset} at {revision!r} cannot be listed: {_first_line(error)}") from error
    files = tuple(
        Wanted(
            name=entry.path,
            url=hf_hub_url(dataset, entry.path, repo_type="dataset", revision=commit, endpoint=api.endpoint),
            num_bytes=entry.size,
            sha256=entry.lfs.sha256 if entry.lfs is not None else None,
        )
        for entry in sorted(found, key=lambda entry: entry.path)
        if any(matches(entry.path, pattern) for pattern in patterns)
    )
    if not files:
        raise DataError(
            f"{dataset} at {commit} has no file that {list(patterns)} names; it has {_some(entry.path for entry in found)}."
        )
    card = about.card_data
    licence = card.get("license") if card is not None else None
    return Listing(commit=commit, files=files, licence=licence if isinstance(licence, str) else None)


def account_headers() -> dict[str, str]:
    """The account of HF_TOKEN or `hf auth login`, as headers for the Hub only; empty without one."""
    token = get_token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def matches(path: str, pattern: str) -> bool:
    """Whether a path is named by a pattern: wildcards stay within a folder, `**` goes through any number of them."""
    return _matches(path.split("/"), pattern.split("/"))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == ANY_DEPTH:
        return _matches(parts, pattern[1:]) or (bool(parts) and _matches(parts[1:], pattern))
    return bool(parts) and PurePosixPath(parts[0]).match(pattern[0]) and _matches(parts[1:], pattern[1:])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "") or "none"
