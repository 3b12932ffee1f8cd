CREATE TABLE "%I; --_o'brien\" (_d41d8cd9 text, """; DROP TABLE x; --" text, "ééééééééééééééééééééééééééé_63925886" text)
