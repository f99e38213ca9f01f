#!/usr/bin/env bash
# The model that ships as toybirds, from nothing. Hours on two cores; start it again
# where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ -d runs/clip ] || python examples/toybirds/clip.py --out runs/clip
[ -f runs/classifier.keras ] || python examples/toybirds/classifier.py --out runs/classifier.keras
galip train --dataset toybirds --preset galip_small --clip runs/clip \
    --steps 18000 --batch-size 16 --schedule cosine --average 5000 \
    --similarity-weight 2 --sample-every 200 --run runs/toybirds --resume
python examples/toybirds/preset.py runs/toybirds --classifier runs/classifier.keras
galip sample "a red bird" --out examples/toybirds
