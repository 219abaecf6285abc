"""Frames in and out of files: probe, encode, decode, PNG, contact sheets. The only part of safegen that runs ffmpeg."""

from safegen.media.clips import read_clip
from safegen.media.decoding import decode
from safegen.media.encoding import encode_video
from safegen.media.ffmpeg_process import executable_version
from safegen.media.images import contact_sheet, encode_png, write_contact_sheet
from safegen.media.probing import MediaInfo, probe

__all__ = [
    "MediaInfo",
    "contact_sheet",
    "decode",
    "encode_png",
    "encode_video",
    "executable_version",
    "probe",
    "read_clip",
    "write_contact_sheet",
]
