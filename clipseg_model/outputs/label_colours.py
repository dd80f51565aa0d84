"""The colour of every label. Written by scripts/make_label_colours.py; do not edit."""

from __future__ import annotations

LABEL_COLOURS = bytes.fromhex("""
ff3152 52ff00 00b5f7 ffad00 5a29ff 007b52 efd6ff 7b5200 00ffef 734a5a ff3aef 8c9410 ffffd6
8484bd 00738c d6a594 a51900 84ad94 e6de00 ef6300 4a5a00 b5009c 42527b ff94bd 00ad31 9c6b5a
b5efff c5b584 007bde bd004a 00a5ad b57b19 a5bdff ad6b94 a5ffbd 737b52 ad5208 ce9cff ff008c
adce6b 7b5a9c ef0800 428400 00ce94 a563ff ffdebd ff7b63 10d6e6 b59cbd c5a500 5a63d6 3a5a42
ce7b84 f79c5a a5dece 6394ad 847319 734a3a ffc5ce 4a847b a58c6b efff94 b500ef 3a9c6b 846b4a
ffd67b 006363 6b94ff b54a42 94a56b 006310 7331a5 005a84 5ad663 ff9c9c 942963 ad7bc5 00c5b5
c57b52 635a31 ffadf7 b5cea5 ad5a6b 004abd 8cbdd6 bdef00 e66bb5 ce9c52 734273 73ad00 9c8cff
deffde e600b5 adb500 8c3a42 089cff 7bbdbd a58c3a 847394 b5ff84 ce6b5a ffcebd ce107b 636b9c
00ffc5 ce9ca5 d6ce73 ad52bd 00ff8c 844210 bdb5e6 ff638c 73b573 efbd84 0084b5 de3163 4a733a
e68400 7bd600 635a7b 009c8c 6b7b00 ad1029 8452d6 efc500 5a8463 9cffff e6b5d6 c56b10 63944a
5ad6ff ef84ef b5847b 008c3a 00b5d6 8cd6a5 c55a31 8c5a7b 318c9c b5deff ffa584 8c5a5a 946b21
7bbdff ff5229 ceefad ce8cb5 195a6b de003a ada552 ced6ff 4a6b8c 9cffde c5a584 8c5a3a 5a52a5
ce73ff efdead 5a6342 a56b3a 6b84a5 d631ff 52b594 a5737b 6b5a00 7373ff 007363 b54a94 8c8c52
94a5ce a54a29 ce5a84 08633a ffef7b 6b5231 ff6b73 639c94 8c6bc5 6b6b29 ce0819 5adebd 0063d6
a59c73 a594ce 6bded6 21c500 8c7b4a 104af7 ce63ce 00b56b e6b552 8c3a29 ad849c 7b9473 ef8452
efff08 73a5ce 6b9410 ad846b 944a63 009cce b5bd84 d68c73 8c4294 d6ade6 9cde8c ce5a63 8c00d6
ada5f7 c5d64a de423a 4a3ac5 9c84ad d69c00 7bbd52 63a5b5 946ba5 ce946b c53100 8cdee6 425a29
ffbd94 007b84 00f7ff 945a19 427bff ffad52 84c5ad 426b08 5273bd b58452 5ae69c de7b9c 42735a
0873ad c5ffef ff524a ff31b5 198c6b cebd3a f7b5ad 94009c b54252 9cc508 ff8cd6 ff7b00 634a84
94ad4a 528cbd 945242 9c3abd fff7ad 4a7b94 9c7b00
""")
"""RGB of the ids 1 … 254, 3 bytes each."""
