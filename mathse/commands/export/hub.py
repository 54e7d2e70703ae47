"""``--push-to-hub OWNER/NAME``: an export as a repository of the hub, sent by huggingface_hub.

A new repository is private; one that is public already is taken only with ``--public``. Files that the repository has
are not sent again, files of an earlier export that this one lacks are removed, and where nothing changed there is no
commit. A repository with other files than an export's is refused, as a folder is.

The token is HF_TOKEN of the environment and nothing else: what publishes does not take a token that happens to lie on a
shared machine's disk. HF_ENDPOINT names another hub than the public one.
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
BY_THE_HUB = {".gitattributes"}  # what a repository has from its first moment on


class HubError(MathSEError):
    """The hub did not take an export; the folder of the export is whole."""


class HubRepository:
    """Where an export goes. Raises ConfigError for a name that is none and where there is no token, so that this is
    known before the export is made."""

    def __init__(self, name: str, public: bool = False) -> None:
        if not HUB_ID.fullmatch(name):
            raise ConfigError(f"--push-to-hub {name!r}: must be OWNER/NAME, such as my-lab/geometry-student")
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise ConfigError(
                f"--push-to-hub {name}: {TOKEN} is not set in the environment; make a token with write access to "
                f"{name.partition('/')[0]} in the hub's settings and export {TOKEN}=... (a stored login is not used)"
            )
        self.name, self.public, self._token = name, public, token

    def push(self, folder: Path, kind: Literal["model", "dataset"], marker: str) -> str:
        """Send what is in ``folder``; a line that says where it is now.

        Raises DataError for a repository that is not ours to write to, HubError for what the hub answers otherwise.
        """
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # loads an HTTP client

        try:
            return self._push(folder, kind, marker)
        except OfflineModeIsEnabled:
            raise ConfigError(f"--push-to-hub {self.name}: HF_HUB_OFFLINE is set; unset it to push") from None
        except (HTTPError, RuntimeError) as error:  # the library wraps a failed upload of a large file in the second
            cause = error.__cause__ if isinstance(error.__cause__, HTTPError) else error
            raise HubError(f"--push-to-hub {self.name}: {self._reason(cause)}; the export is in {folder}") from None

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
            head, private = info.sha, bool(info.private)
            if not private and not self.public:
                raise DataError(
                    f"--push-to-hub {self.name}: that {kind} is public; pass --public if this may be, or name another"
                )
            files = {*api.list_repo_files(self.name, repo_type=kind)} - BY_THE_HUB
            with TemporaryDirectory() as scratch:
                ours = marker in files and is_made_by_us(
                    Path(api.hf_hub_download(self.name, marker, repo_type=kind, local_dir=scratch))
                )
            if files and not ours:
                raise DataError(
                    f"--push-to-hub {self.name}: that {kind} holds files of no export ({min(files)}); name a new one"
                )
        if not files:  # the marker first: a large folder comes in several commits, and a push that broke off can go on
            api.upload_file(
                path_or_fileobj=folder / marker,
                path_in_repo=marker,
                repo_id=self.name,
                repo_type=kind,
                commit_message="mathse export: what this repository is",
            )
        made = api.upload_folder(
            folder_path=folder,
            repo_id=self.name,
            repo_type=kind,
            commit_message=f"mathse export: {folder.name}",
            delete_patterns="*",
        )
        page = f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{self.name}"
        if made.oid == head:
            return f"{page}: has all of it already (commit {made.oid[:8]}); nothing was sent"
        return f"{page}: pushed, {'private' if private else 'public'}, commit {made.oid[:8]}"

    def _reason(self, error: BaseException) -> str:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            return f"the hub does not know this {TOKEN}; make a new one with write access"
        if status == 403:
            return f"this {TOKEN} may not write there; use one with write access to {self.name.partition('/')[0]}"
        text = (str(error).strip() or type(error).__name__).splitlines()[0].replace(self._token, "***")
        hint = "" if status else "; check the network and HF_ENDPOINT"
        return f"the hub did not take it ({text}){hint}; run the same command again, what was sent is not sent twice"
