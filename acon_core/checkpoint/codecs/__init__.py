"""Codecs of file formats: bytes to named tensors and back. Nothing here knows a network.

Formats: `safetensors_file`, `sharded` (safetensors in several files) and `npz_file`. What they and
the backends' codecs share: `codec` (the interface), `limits`, `mapped_file`, `arrays`,
`atomic_write`, `text`, `strict_json`, `state_dict`, `zip_archive`; and of pickles, none of which
is ever executed: `pickle_reader`, `unpickler`, `numpy_pickle`, `pickled_module`.
"""
