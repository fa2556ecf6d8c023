#!/bin/sh
# Builds the image with docker or buildah, and runs its commands as a user other than root, on files that it makes.
#
#   docker/check.sh                                   the CPU image
#   docker/check.sh --build-arg TORCH=cuda            options go to the build
#   docker/check.sh --secret id=pip,src=$HOME/pip.conf --volume /wheels:/wheels     pip's own configuration (buildah)
#
# ENGINE: docker or buildah (default: docker where its daemon runs, otherwise buildah, which needs no daemon).
set -eu
cd "$(dirname "$0")/.."
image=rife-check
work=$(mktemp -d)
container=
if [ -z "${ENGINE:-}" ]; then
  if docker info >/dev/null 2>&1; then ENGINE=docker; else ENGINE=buildah; fi
fi
user="$(id -u):$(id -g)"
if [ "$(id -u)" = 0 ]; then user=1000:1000; fi # root would own its files in any case
chown "$user" "$work"

clean() {
  if [ -n "$container" ]; then buildah rm "$container" >/dev/null; fi
  rm -rf "$work"
}
trap clean EXIT

if [ "$ENGINE" = docker ]; then
  docker build -t "$image" --build-arg TORCH=cpu "$@" -f docker/Dockerfile .
else
  buildah bud --isolation chroot -t "$image" --build-arg TORCH=cpu "$@" -f docker/Dockerfile .
  container=$(buildah from --pull-never "$image")
fi

# runs a command in the image, in the folder of the files
in_image() {
  echo "+ $*"
  if [ "$ENGINE" = docker ]; then
    docker run --rm --user "$user" --volume "$work:/host" "$image" "$@"
  else
    buildah run --isolation chroot --user "$user" --volume "$work:/host" "$container" -- "$@"
  fi
}

in_image python3 -c '
import av, cv2, numpy as np
with av.open("my clip.mp4", "w") as out:
    stream = out.add_stream("mpeg4", 25, width=64, height=48)
    for i in range(4):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[16:32, 8 + 4 * i : 24 + 4 * i] = 255
        cv2.imwrite(f"img {i}.png", frame)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
    out.mux(stream.encode())
'
in_image inference_video --video "my clip.mp4" --output "twice as many.mp4"
in_image inference_img --img "img 0.png" "img 1.png" --exp 2 --output pictures
in_image sh -c "train --help >train.txt"
in_image sh -c "benchmark UCF101 --help >benchmark.txt"
in_image python3 -c '
import av
from pathlib import Path
with av.open("twice as many.mp4") as file:
    frames = sum(1 for _ in file.decode(video=0))
assert frames in (7, 8), frames
pictures = len(list(Path("pictures").glob("*.png")))
assert pictures == 5, pictures
for name in ("train.txt", "benchmark.txt"):
    assert "usage:" in Path(name).read_text(), name
print(f"{frames} frames, {pictures} pictures")
'
in_image sh -c 'cd /rife && find kernels -name "*.so" -newer inference_video.py | grep -q .' || {
  echo "check.sh: the image holds no compiled kernels" >&2
  exit 1
}
if find "$work" ! -user "${user%:*}" | grep .; then
  echo "check.sh: these files do not belong to $user" >&2
  exit 1
fi
du -sh "$work/twice as many.mp4" "$work/pictures"
echo "check.sh: the image works"
