"""What hostile files try: each case of `corpus.py` is of one of these kinds."""

from __future__ import annotations

from enum import Enum


class Attack(Enum):
    """A kind of hostile file, with what its cases contain."""

    # In pickles.
    SYSTEM_CALL = "calls of os.system, subprocess and the like"
    EVAL = "calls of exec and eval; in text headers, expressions"
    PADDLE_EVAL = "the calls of eval and tuple that Paddle writes, with other arguments"
    ATTRIBUTE_CHAIN = "getattr, importlib and copyreg as a way to a function"
    NUMPY_GADGET = "functions of NumPy that execute their arguments"
    DOTTED_GLOBAL = "a global whose name has dots, which would be a path of attributes"
    MEMOIZED_GLOBAL = "a global whose name is assembled from the memo"
    INSTANTIATION = "the opcodes INST, OBJ, EXT, PERSID and NEWOBJ_EX"
    BUILD = "the opcode BUILD on a global or a dict, or with slots"
    OPERAND_TYPE = "calls and items on values of the wrong type"
    MEMO_INDEX = "memo indices that were never set, or are not numbers"
    BILLION_LAUGHS = "few bytes that refer to each other very often"
    CYCLE = "values that contain themselves"
    NESTING = "values nested very deep"
    LENGTH = "lengths and numbers that are huge, negative or malformed"
    INCOMPLETE = "empty, cut or malformed files; stacks without the values that an opcode needs"
    SECOND_PICKLE = "bytes or another pickle after the end of a pickle"
    DICT_KEY = "names that occur twice, and keys that are not text"
    TEXT_CODEC = "_codecs.encode with another codec than latin-1"
    ENCODING = "unknown protocols, invalid text, lines without an end"
    # In the descriptions of arrays.
    DTYPE = "dtypes that are not numbers: objects, records, dates"
    ARRAY_CLASS = "subclasses of ndarray, and arrays without values"
    SHAPE = "shapes that are negative, huge, not integers, or do not fit the bytes"
    STRIDES = "strides and offsets that lead out of the storage"
    AMPLIFICATION = "many or huge tensors that share few bytes"
    STORAGE = "storages whose key, length or dtype is wrong"
    TENSOR_METADATA = "unknown metadata of tensors, and conjugate bits on real numbers"
    # In containers.
    COMPRESSION = "decompression bombs, and compression where none is allowed"
    ZIP_STRUCTURE = "zips that contradict themselves: overlaps, duplicates, hidden bytes"
    FILE_NAME = "names that lead out of the archive or the folder"
    CONTENT = "contents that are missing, too short, too long or changed"
    JSON_HEADER = "headers that are not the JSON of the format"
    BYTE_RANGE = "tensors whose bytes overlap or leave gaps"
    MSGPACK = "msgpack with impossible lengths, extension types or chunks"
    OCDBT = "OCDBT nodes and manifests that are invalid, circular or lead out of the folder"
    ZARR = "Zarr metadata and chunks that are impossible, huge or links"
    PADDLE_SLICES = "slices of large arrays in Paddle's pickles that do not fit"
    OTHER_FILE = "valid files of other kinds: HTML, tar, TorchScript, no tensors"
    # While writing.
    LINK_AS_TARGET = "a target that is a symbolic link"
    INTERRUPTION = "an exception or a kill in the middle of writing"
    KEY_AS_PATH = "tensor names that would be paths"
    MEMORY_LAYOUT = "arrays of any strides, alignment and byte order"
    TRUNCATED_SOURCE = "a file that is cut while it is mapped"
