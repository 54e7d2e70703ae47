"""``--push-to-hub OWNER/NAME``: send an export to a repository of the hub, with huggingface_hub.

A new repository is private. A public repository is accepted only with ``--public``. Files that the repository has are
not sent again, files of an earlier export that this export lacks are removed, and an unchanged export makes no commit.
A repository with files that are not from an export is refused, as such a folder is.

The token is HF_TOKEN of the environment and no other: publishing must not use a token that somebody stored on the disk
of a shared machine. HF_ENDPOINT is the address of another hub than the public hub.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from mathse.config.rules.files import HUB_ID
from mathse.errors import ConfigError, DataError, MathSEError
from mathse.runs.published import is_made_by_us

TOKEN = "HF_TOKEN"
HUB_FILES = {".gitattributes"}  # in every new repository


class HubError(MathSEError):
    """The hub refused an export. The folder of the export is complete."""


class HubRepository:
    """A repository of the hub.

    Raises ConfigError for a wrong name and for a missing token, before the export is made.
    """

    def __init__(self, name: str, public: bool = False) -> None:
        if not HUB_ID.fullmatch(name):
            raise ConfigError(f"--push-to-hub {name!r}: must be OWNER/NAME, such as my-lab/geometry-student")
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise ConfigError(
                f"--push-to-hub {name}: {TOKEN} is not set in the environment; create a token with write access to "
                f"{name.partition('/')[0]} in the hub's settings and export {TOKEN}=... (a stored login is not used)"
            )
        self.name, self.public, self._token = name, public, token

    def push(self, folder: Path, kind: Literal["model", "dataset"], marker: str) -> str:
        """Send the files of ``folder``. Returns a line with the address and the commit.

        Raises DataError for a repository that must not be overwritten, HubError for other refusals of the hub.
        """
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # these import an HTTP client

        try:
            return self._push(folder, kind, marker)
        except OfflineModeIsEnabled:
            raise ConfigError(f"--push-to-hub {self.name}: HF_HUB_OFFLINE is set; unset it to push") from None
        except (HTTPError, RuntimeError) as error:  # RuntimeError: a failed upload of a large file
            cause = error.__cause__ if isinstance(error.__cause__, HTTPError) else error
            raise HubError(f"--push-to-hub {self.name}: {self._explain(cause)}; the export is in {folder}") from None

    def _push(self, folder: Path, kind: Literal["model", "dataset"], marker: str) -> str:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=self._token)
        files: set[str] = set()
        try:
            info = api.repo_info(self.name, repo_type=kind)
        except RepositoryNotFoundError:
            api.create_repo(self.name, repo_type=kind, private=not self.public, exist_ok=True)
            head, private = None, not self.public
        else:
            # The repository exists: it must be an earlier export, and public only with --public.
            head, private = info.sha, bool(info.private)
            if not private and not self.public:
                raise DataError(
                    f"--push-to-hub {self.name}: that {kind} is public; pass --public to allow this, or name another"
                )
            files = {*api.list_repo_files(self.name, repo_type=kind)} - HUB_FILES
            with TemporaryDirectory() as scratch:
                is_export = marker in files and is_made_by_us(
                    Path(api.hf_hub_download(self.name, marker, repo_type=kind, local_dir=scratch))
                )
            if files and not is_export:
                raise DataError(
                    f"--push-to-hub {self.name}: that {kind} holds files of no export ({min(files)}); name another"
                )
        # The marker is sent first. A large folder takes several commits, and an interrupted push can then be repeated.
        if not files:
            api.upload_file(
                path_or_fileobj=folder / marker,
                path_in_repo=marker,
                repo_id=self.name,
                repo_type=kind,
                commit_message="mathse export: mark this repository",
            )
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=self.name,
            repo_type=kind,
            commit_message=f"mathse export: {folder.name}",
            delete_patterns="*",
        )
        page = f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{self.name}"
        if commit.oid == head:
            return f"{page}: has all of it already (commit {commit.oid[:8]}); nothing was sent"
        return f"{page}: pushed, {'private' if private else 'public'}, commit {commit.oid[:8]}"

    def _explain(self, error: BaseException) -> str:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            return f"the hub does not know this {TOKEN}; create a token with write access"
        if status == 403:
            return f"this {TOKEN} may not write there; use a token with write access to {self.name.partition('/')[0]}"
        text = (str(error).strip() or type(error).__name__).splitlines()[0].replace(self._token, "***")
        hint = "" if status else "; check the network and HF_ENDPOINT"
        return f"the hub did not take it ({text}){hint}; run the same command again, sent files are not sent twice"
