"""Workers may read what gateways store: the settings of `images` with the place of `uploads` among what is allowed."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from detectors.policy import ImagePolicy
from infra.settings import Settings


def readable_uploads(settings: Settings) -> ImagePolicy:
    """`settings.images`, and the folder or bucket of `settings.uploads` with its own options unless `images` has some for it."""
    images, uploads = settings.images, settings.uploads
    parts = urlsplit(uploads.url)
    if parts.scheme in {"", "file"}:
        folder = Path(unquote(parts.path) if parts.scheme else uploads.url).expanduser().absolute()
        return replace(images, roots=(*images.roots, folder))
    bucket = f"{parts.scheme}://{parts.netloc}"
    return replace(images, stores={bucket: uploads.options, **images.stores})
