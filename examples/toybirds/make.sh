#!/usr/bin/env bash
# The model that ships as toybirds, from nothing. Hours on two cores; start it again
# where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ -d runs/clip ] || python examples/toybirds/clip.py --out runs/clip
[ -f galip_keras/presets/toybirds_classifier.weights.h5 ] ||
    python examples/toybirds/classifier.py
galip train --dataset toybirds --preset galip_small --clip runs/clip \
    --steps 8500 --batch-size 16 --schedule cosine --average 3000 \
    --sample-every 200 --run runs/toybirds --resume
python examples/toybirds/preset.py runs/toybirds
galip sample "a red bird" --out examples/toybirds
