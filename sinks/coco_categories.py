"""COCO's own category ids. They are sparse, 1 to 90, while models number the same 80 classes densely, 0 to 79."""

_NAMES: str = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,bench,bird,cat,dog,"
    "horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,"
    "baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,"
    "orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,"
    "keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)

OFFICIAL: dict[tuple[int, str], int] = {
    (class_id, name): category_id
    for class_id, (category_id, name) in enumerate(pair for pair in enumerate(_NAMES.split(","), 1) if pair[1])
}
"""(dense class id, name) -> COCO's category id, of the 80 classes."""


class Categories:
    """Category ids of one document, as classes turn up: COCO's own where class id and name are COCO's, else class id + 1 if that is free.

    Classes of different models may share a number or a name; each pair of both is a category.
    """

    def __init__(self) -> None:
        self._ids: dict[tuple[int, str], int] = {}
        self._taken: set[int] = set()
        self._beyond = 1_000

    def id_of(self, class_id: int, label: str) -> int:
        """The category of a class; the same one each time."""
        known = self._ids.get((class_id, label))
        if known is not None:
            return known
        wished = OFFICIAL.get((class_id, label), class_id + 1)
        while wished in self._taken:
            self._beyond += 1
            wished = self._beyond
        self._ids[class_id, label] = wished
        self._taken.add(wished)
        return wished

    def listed(self) -> list[dict[str, object]]:
        """Every category so far, as COCO lists them, with the model's own number of each."""
        pairs = sorted(self._ids.items(), key=lambda pair: pair[1])
        return [{"id": number, "name": label, "class_id": class_id} for (class_id, label), number in pairs]
