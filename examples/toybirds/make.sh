#!/usr/bin/env bash
# A model like the one that ships as toybirds, from nothing. Days on two cores; start it
# again where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The CLIP lies beside this script. Without it:
# python examples/toybirds/clip.py --out examples/toybirds/clip
python examples/toybirds/probe.py examples/toybirds/clip --json runs/probe.json
[ -f galip_keras/presets/toybirds_classifier.weights.h5 ] ||
    python examples/toybirds/classifier.py
galip train --dataset toybirds --preset galip_small --clip examples/toybirds/clip \
    --steps 50000 --schedule cosine --batch-size 16 --hard-mismatches 0.5 \
    --average 10000 --save-every 250 --sample-every 1250 --run runs/toybirds --resume
python examples/toybirds/preset.py runs/toybirds
galip sample "a red bird" --out examples/toybirds
