"""Exits 0 if the Vulkan loader finds at least one device, before anything is compiled.

A driver's manifest alone proves little: a container may have the manifest of a GPU that is not there."""

import ctypes
import sys


class InstanceCreateInfo(ctypes.Structure):  # VkInstanceCreateInfo, all optional parts left empty
    _fields_ = [("type", ctypes.c_int), ("next", ctypes.c_void_p), ("flags", ctypes.c_uint32), ("app", ctypes.c_void_p),
                ("layer_count", ctypes.c_uint32), ("layers", ctypes.c_void_p),
                ("extension_count", ctypes.c_uint32), ("extensions", ctypes.c_void_p)]


try:
    vulkan = ctypes.CDLL("libvulkan.so.1")
except OSError:
    sys.exit(1)
instance, count = ctypes.c_void_p(), ctypes.c_uint32()
ok = vulkan.vkCreateInstance(ctypes.byref(InstanceCreateInfo(type=1)), None, ctypes.byref(instance)) == 0 \
    and vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None) == 0 and count.value > 0
sys.exit(0 if ok else 1)
