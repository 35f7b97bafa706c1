"""From an OCI image to a bundle: image layouts, docker archives, registries, layers, the
configuration.

Verbs that engines call often import none of this. ``sources`` finds an image, ``manifest`` selects
and verifies, ``blobs`` decompresses, ``layer`` and ``tree`` write the root filesystem, ``convert``
writes config.json, and ``store`` keeps unpacked images.
"""
