"""Files of data set repositories on the Hugging Face hub.

`huggingface_hub` finds the commit, the files and their checksums, the server (`HF_ENDPOINT`) and
the token (`HF_TOKEN`, or `hf auth login`). The bytes come by `transfer.download`: `hf_hub_download`
(2.4) restarts a file after an interruption. No code of a repository is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase

from huggingface_hub import HfApi, constants, errors, get_token, hf_hub_url

from tff.data.download.extract import find_path_problem
from tff.data.download.sources import HubFiles
from tff.data.download.transfer import HTTPError, RemoteFile, SlowError, bound_waits

_TOKEN = "pass your token: HF_TOKEN=..., or `hf auth login` once"


def list_files(hub: HubFiles, revision: str, mirror: str = "") -> tuple[str, list[RemoteFile]]:
    """Commit of a revision, and the declared files in it, sorted by name.

    Args:
        hub: repository and patterns.
        revision: commit or branch.
        mirror: address of another hub; "": `HF_ENDPOINT`, else the hub itself.

    Raises:
        ValueError: no such repository, revision or file, no access, or no connection.
    """
    endpoint = (mirror or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    page = f"{endpoint}/datasets/{hub.repo}"
    api = HfApi(endpoint=endpoint)
    with _explain_errors(hub.repo, revision, page):
        with bound_waits():
            info = api.dataset_info(hub.repo, revision=revision, files_metadata=True)
        if info.gated:
            with bound_waits():
                api.auth_check(hub.repo, repo_type="dataset")
    commit = info.sha or ""
    if len(revision) == len(commit) and revision != commit:
        raise ValueError(f"{page}: answers with commit {commit}, requested was {revision}")
    token = get_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    files = []
    for entry in info.siblings or []:
        name = entry.rfilename
        if not any(fnmatchcase(name, pattern) for pattern in hub.files):
            continue
        if problem := find_path_problem(name):
            raise ValueError(f"{page}: its file {name!r} {problem}")
        url = hf_hub_url(hub.repo, name, repo_type="dataset", revision=commit, endpoint=endpoint)
        sha256 = entry.lfs.sha256 if entry.lfs else None
        files.append(RemoteFile(name, url, entry.size or 0, entry.size, sha256, headers))
    if not files:
        raise ValueError(f"{page}: no file {' or '.join(hub.files)} at revision {revision}")
    return commit, sorted(files, key=lambda file: file.name)


@contextmanager
def _explain_errors(repo: str, revision: str, page: str) -> Iterator[None]:
    try:
        yield
    except errors.GatedRepoError:
        text = f"access has to be granted. Log in there and accept the conditions, then {_TOKEN}"
        raise ValueError(f"{page}: {text}") from None
    except errors.RepositoryNotFoundError:
        text = f"no such data set, or it is private; if you have access, {_TOKEN}"
        raise ValueError(f"{page}: {text}") from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{page}: no revision {revision}; it may have been removed") from None
    except errors.OfflineModeIsEnabled:
        raise ValueError(f"{page}: HF_HUB_OFFLINE=1 is set; unset it to download") from None
    except errors.HFValidationError as error:
        raise ValueError(f"{repo}: not a repository ({error})") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "check your token (HF_TOKEN)" if status in (401, 403) else "try again later"
        raise ValueError(f"{page}: the server answers {status}; {hint}") from None
    except SlowError as error:
        text = f"the server is too slow ({error}). Try again later, or name a mirror"
        raise ValueError(f"{page}: {text} with HF_ENDPOINT=URL") from None
    except (HTTPError, OSError) as error:
        text = f"no connection ({error}). Check the network, or name a mirror with HF_ENDPOINT=URL"
        raise ValueError(f"{page}: {text}") from None
