"""Names the kinds of files that users pass to `read_image` by mistake, from their first bytes."""

from __future__ import annotations

# (offset, bytes at this offset, kind of file, advice). The first match counts.
_HEIC = ("a HEIC image", "install pillow-heif and call pillow_heif.register_heif_opener(), or export it as JPEG")
_JXL = ("a JPEG XL image", "install pillow-jxl-plugin and import pillow_jxl, or convert it to PNG")
_VIDEO = ("a video", "save one frame as PNG")
_TIFF = ("a TIFF image that is damaged or of an unusual kind", "convert it to an 8-bit TIFF or PNG")
_AGAIN = "copy or download it again"
_KNOWN = (
    (4, b"ftyphe", *_HEIC),
    (4, b"ftypmif1", *_HEIC),
    (4, b"ftypavif", "an AVIF image", "it is damaged, or this Pillow was built without AVIF. Convert it to PNG"),
    (4, b"ftyp", *_VIDEO),
    (0, b"\x1aE\xdf\xa3", *_VIDEO),
    (0, b"\xff\x0a", *_JXL),
    (4, b"JXL ", *_JXL),
    (0, b"v/1\x01", "an OpenEXR image", "tone-map it to 8 bits and save it as PNG"),
    (0, b"%PDF", "a PDF document", "export the page as PNG"),
    (0, b"\x93NUMPY", "a NumPy array", "load it with numpy.load and pass the (H, W, 3) uint8 array"),
    (0, b"PK\x03\x04", "a zip archive, such as a checkpoint or an office document", "pass an image file"),
    (0, b"\x1f\x8b", "gzip data", "unpack it first"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file", "run git lfs pull"),
    (0, b"\x89PNG", "a damaged PNG image", _AGAIN),
    (0, b"\xff\xd8", "a damaged JPEG image", _AGAIN),
    (0, b"GIF8", "a damaged GIF image", _AGAIN),
    (0, b"RIFF", "a damaged WebP image, or audio or video", _AGAIN),
    (0, b"II*\x00", *_TIFF),
    (0, b"MM\x00*", *_TIFF),
)


def describe_file(head: bytes) -> tuple[str, str]:
    """Recognise a file that Pillow cannot read.

    Args:
        head: Its first bytes; 256 are enough.

    Returns:
        (kind of file, advice), both as parts of a sentence.
    """
    for offset, magic, found, advice in _KNOWN:
        if head.startswith(magic, offset):
            return found, advice
    text = " ".join(head.decode("latin-1").removeprefix("\xef\xbb\xbf").split())
    if "<svg" in text.lower():
        return "an SVG drawing", "export it as PNG"
    if text.lower().startswith(("<html", "<!doctype")):
        return "a web page", "download the image itself, not the page that shows it"
    if head.isascii() and text.isprintable():
        return f"text that begins {text[:24]!r}", "pass an image file"
    return f"bytes that begin {head[:12].hex(' ')}", "convert it to PNG or JPEG"
