"""A small data set that tests draw themselves."""

from PIL import Image, ImageDraw

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")


def draw_pictures(folder):
    """Writes a picture and a caption of a circle for every colour."""
    folder.mkdir()
    for color in COLORS:
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=color)
        image.save(folder / f"{color}.png")
        (folder / f"{color}.txt").write_text(f"a {color} circle\n")
    return folder
