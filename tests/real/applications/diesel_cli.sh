# Some 140 crates; links the system's SQLite, which a build script finds.
version=2.3.14
commands="pkg-config"
headers="sqlite3.h=libsqlite3-dev"
features="--no-default-features --features sqlite"
