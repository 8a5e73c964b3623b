"""Upload a model folder to the Hugging Face Hub, private by default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # of its transport

from gristmill.data.hub import hub_client
from gristmill.errors import ArtifactError, RecipeError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def push(folders: Mapping[str, Path], repository: str, *, public: bool) -> str:
    """Upload each folder to its path in `repository` ("" is the top), which is created if absent; return its address.

    The account is that of `hf auth login` or HF_TOKEN. Raises RecipeError for a name other than OWNER/NAME, and for a
    public repository without `public`; ArtifactError when the Hub refuses or cannot be reached.
    """
    if not REPOSITORY.fullmatch(repository):
        raise RecipeError(f"--push is {repository!r}; expected OWNER/NAME, such as ada/quickstart.")
    api = hub_client()
    try:
        address = api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.repo_info(repository).private:
            raise RecipeError(
                f"{address} exists and is public; nothing was uploaded. Add --public, or name another repository."
            )
        for place, folder in folders.items():
            api.upload_folder(
                repo_id=repository, folder_path=folder, path_in_repo=place, commit_message="Add the model"
            )
    except (HTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"{repository}: the upload to the Hugging Face Hub failed: {first}\n"
            "  `hf auth whoami` shows your account; HF_HUB_OFFLINE=1 disables uploads. Uploaded files stay on the Hub; the same "
            "command uploads the rest."
        ) from error
    return str(address)
