"""Send a model folder to the Hugging Face Hub, private unless said otherwise."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError, MissingExtra, RecipeError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def push(folders: Mapping[str, Path], repository: str, *, public: bool) -> str:
    """Upload each folder to its place in `repository` ("" is the top), made where it is not there; return its address.

    The account is the one that `hf auth login` or HF_TOKEN names. Raises RecipeError for a name that is no OWNER/NAME, and for
    a repository that is public where `public` was not asked for; ArtifactError when the Hub refuses or cannot be reached.
    """
    if not REPOSITORY.fullmatch(repository):
        raise RecipeError(f"--push is {repository!r}; expected OWNER/NAME, such as ada/quickstart.")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtra(
            "--push needs the package huggingface_hub, which is not installed: pip install huggingface_hub"
        )
    hub: Any = importlib.import_module("huggingface_hub")
    transport: Any = importlib.import_module("huggingface_hub.errors")
    api = hub.HfApi()
    try:
        address = api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.repo_info(repository).private:
            raise RecipeError(
                f"{address} is there already and is public; nothing was sent. Add --public, or name another."
            )
        for place, folder in folders.items():
            api.upload_folder(
                repo_id=repository, folder_path=folder, path_in_repo=place, commit_message="Add the model"
            )
    except (transport.HTTPError, transport.HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"{repository}: the Hugging Face Hub did not take the model: {first}\n"
            "  `hf auth whoami` shows whose name it would be under; HF_HUB_OFFLINE=1 forbids the way there. What was sent "
            "stays; the same command sends the rest."
        ) from error
    return str(address)
