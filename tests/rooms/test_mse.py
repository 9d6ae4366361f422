"""What is packed plays in a real browser, by Media Source Extensions and nothing of anybody's between."""

from __future__ import annotations

import base64

import pytest

from tests.browser import chromium
from tests.conftest import program
from tests.rooms.test_native import packed
from tests.rooms.test_playback import movies
from videostore.synthetic.stream import FRAME_RATE, WIDTH

PLAY = """
const [type, movies] = arguments;  // of a second each
const bytes = movies.map((text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)));
const happens = (target, name) => new Promise((done, fail) => {
  target.addEventListener(name, done, {once: true});
  target.addEventListener("error", () => fail(`${name}: ${video.error?.message}`), {once: true});
});
document.body.innerHTML = "<video muted></video>";
const video = document.querySelector("video"), media = new MediaSource();
const widths = new Set();
video.muted = true;
video.addEventListener("resize", () => widths.add(video.videoWidth));
video.src = URL.createObjectURL(media);
return happens(media, "sourceopen").then(async () => {
  const buffer = media.addSourceBuffer(type);
  for (const [at, movie] of bytes.entries()) {
    buffer.timestampOffset = at;
    buffer.appendBuffer(movie);
    await happens(buffer, "updateend");
  }
  media.endOfStream();
  const ended = happens(video, "ended");
  video.playbackRate = 2;
  await video.play();
  await ended;
  widths.add(video.videoWidth);
  const ranges = [...Array(video.buffered.length).keys()];
  return {buffered: ranges.map((at) => [video.buffered.start(at), video.buffered.end(at)]),
    time: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames,
    heard: video.webkitAudioDecodedByteCount, widths: [...widths]};
});
"""
"""www.w3.org/TR/media-source-2."""
PICTURE, BOTH = 'video/mp4; codecs="avc1.4d401e"', 'video/mp4; codecs="avc1.4d401e, mp4a.40.2"'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(program("chromedriver"), tmp_path_factory.mktemp("profile")) as window:
        yield window


def whole(b_frames, **how):
    """A second as a segment, by our own packer."""
    packer, fragments, _ = packed("h264", b_frames, seconds=1, **how)
    return packer.movie(fragments)


@pytest.mark.parametrize(
    ("kind", "films", "widths"),
    [
        pytest.param(PICTURE, lambda: [whole(0), whole(0)], [WIDTH], id="H.264"),
        pytest.param(PICTURE, lambda: [whole(2), whole(2)], [WIDTH], id="B-frames"),
        pytest.param(
            PICTURE, lambda: [whole(2), whole(0, width=320, height=180)], [WIDTH, 320], id="another size"
        ),
        pytest.param(BOTH, lambda: movies(2, heard="aac"), [WIDTH], id="sound"),
    ],
)
def test_a_browser_plays_segments_as_they_are_without_a_break(browser, kind, films, widths):
    browser.open("about:blank")
    parts = films()
    seen = browser.run(PLAY, kind, [base64.b64encode(one).decode() for one in parts])
    length = len(parts)  # seconds
    assert seen["buffered"] == [[0, pytest.approx(length, abs=0.1)]]
    assert seen["time"] == pytest.approx(length, abs=0.1)
    assert seen["frames"] > length * FRAME_RATE / 2  # a busy machine leaves some out
    assert seen["widths"] == widths
    assert (seen["heard"] > 0) == (kind == BOTH)
