#!/usr/bin/env bash
# The model that ships as toybirds, from nothing. Hours on two cores; start it again
# where it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ -d runs/clip ] || python examples/toybirds/clip.py --out runs/clip --steps 2500
[ -f runs/classifier.keras ] || python examples/toybirds/classifier.py --out runs/classifier.keras
galip train --dataset toybirds --preset galip_small --clip runs/clip \
    --steps 20000 --batch-size 16 --generator-lr 4e-4 --discriminator-lr 8e-4 \
    --schedule cosine --average 5000 --sample-every 500 --run runs/toybirds --resume
python examples/toybirds/preset.py runs/toybirds --classifier runs/classifier.keras
galip sample "a red bird" --out examples/toybirds
