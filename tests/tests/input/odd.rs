//! Odd sources, arguments and folders, through the real wrapper: what the compiler makes of them, and nothing else; never a hang.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use buildbee_tests::network::skipped;
use buildbee_tests::seen::{Seen, see};

use crate::place::{Place, SOON, run, wait};

/// A place with a folder `p` whose content alone is compared.
struct Odd(Place);

impl Odd {
    fn new() -> Self {
        Self::at(Place::new())
    }

    fn at(place: Place) -> Self {
        place.write("p/x.c", "#include \"x.h\"\nint x = X;\n");
        place.write("p/x.h", "#define X 1\n");
        Self(place)
    }

    fn folder(&self) -> std::path::PathBuf {
        self.0.path("p")
    }

    /// Runs the shell line `line` with `$CC`, and tells what is seen; what it left is removed again.
    fn seen(&self, compiler: &str, line: &str) -> Seen {
        let before = self.0.snapshot("p");
        let mut shell = self.0.command("timeout");
        // Nothing here takes long: what does has hung.
        shell.args([&SOON.as_secs().to_string(), "bash", "-c", line]).env("CC", compiler).current_dir(self.folder());
        let seen = see(&mut shell, &self.folder());
        for path in self.0.snapshot("p").keys().filter(|path| !before.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        assert_ne!(seen.code, Some(124), "{line} hangs");
        seen
    }

    /// Runs `line` plainly and twice with the wrapper: everything that can be seen must be the same.
    fn same(&self, line: &str) -> Seen {
        let plain = self.seen("gcc", line);
        for _ in 0..2 {
            assert_eq!(self.seen("buildbee gcc", line), plain, "{line}");
        }
        plain
    }
}

#[test]
fn response_files_that_lead_nowhere() {
    let odd = Odd::new();
    odd.0.write("p/self", "-O1 @self\n");
    odd.0.write("p/ping", "@pong\n");
    odd.0.write("p/pong", "-g @ping\n");
    odd.0.write("p/quote", "-DX='\n");
    odd.0.write("p/nested", "-O1 @deeper -c x.c\n");
    odd.0.write("p/deeper", "-g\n");
    fs::write(odd.0.path("p/bytes"), b"-DNAME=\"caf\xe9\" -c x.c -o \xff.o\n").unwrap();
    for line in [
        "$CC @self -c x.c",
        "$CC @ping -c x.c",
        "$CC @quote -c x.c",
        "$CC @none -c x.c",
        "$CC @. -c x.c",
        "$CC @nested",
        "$CC @bytes && ls",
        "$CC @/dev/null -c x.c",
    ] {
        odd.same(line);
    }
}

#[test]
fn megabytes_of_arguments() {
    let odd = Odd::new();
    let value = "v".repeat(256);
    let many = (0..40_000).map(|n| format!("-DNAME_{n}={value}")).collect::<Vec<_>>().join("\n");
    assert!(many.len() > 10 << 20);
    odd.0.write("p/many", &many);
    odd.0.write("p/long", &format!("-DLONG={}\n", "x".repeat(10 << 20)));
    odd.0.write("p/nothing", &" \n".repeat(5 << 20));
    for line in [
        "$CC @many -c x.c",
        "$CC @long -c x.c",
        "$CC @nothing -c x.c",
        // Near to what the system takes.
        "$CC $(seq -f '-DNAME_%06.0f=1' 60000) -c x.c",
        "$CC $(printf -- '-DNAME_%06d=x ' {1..1200}) -DLONG=$(head -c 100000 /dev/zero | tr '\\0' y) -c x.c",
    ] {
        odd.same(line);
    }
}

#[test]
fn bytes_that_are_no_text() {
    let odd = Odd::new();
    let name = |bytes: &[u8]| odd.folder().join(OsStr::from_bytes(bytes));
    fs::create_dir(name(b"f\xff")).unwrap();
    fs::write(name(b"f\xff/\xfe.h"), "#define X 2\n").unwrap();
    fs::write(name(b"f\xff/\xfe.c"), b"#include \"\xfe.h\"\nint x = X;\nchar *s = \"\xff\xfe\";\n").unwrap();
    fs::write(
        name(b"bytes.c"),
        b"// \xff\n#include \"f\xff/\xfe.h\"\nchar s[] = \"\x80\xff\"; int \xc3\xbc = X; int y = \xff;\n",
    )
    .unwrap();
    fs::write(name(b"nul.c"), b"int x;\0int y;\n#include \"x.h\"\0\nint z = X;\n").unwrap();
    fs::write(name(b"bom.c"), b"\xef\xbb\xbf#include \"x.h\"\r\nint z = X;\r\n").unwrap();
    fs::write(name(b"endless.c"), b"#include \"x.h\"\nint z = X; /* no end").unwrap();
    for line in [
        "$CC -g -MD -c bytes.c",
        "$CC -g -MD -c nul.c",
        "$CC -g -MD -c bom.c",
        "$CC -g -c endless.c",
        "$CC -g -MD -c $'f\\xff/\\xfe.c' -o x.o",
        "cd $'f\\xff' && $CC -g -MD -c ../x.c",
        "$CC -g -c x.c -o $'\\xff.o'",
        "$CC -DNAME=$'\"\\xff\"' -g -c x.c",
        "CPATH=$'f\\xff' $CC -include $'\\xfe.h' -c x.c",
        "LC_ALL=$'\\xff' X=$'\\xff' $CC -c x.c",
    ] {
        odd.same(line);
    }
}

#[test]
fn sources_and_outputs_that_are_no_files() {
    // Root would replace the devices themselves.
    let Some(place) = Place::ordinary() else { return };
    let odd = Odd::at(place);
    odd.0.write("p/d.c/inside", "");
    symlink("circle.c", odd.0.path("p/circle.c")).unwrap();
    symlink("nowhere.c", odd.0.path("p/broken.c")).unwrap();
    for line in [
        "mkfifo pipe.c; (echo 'int from_pipe;' > pipe.c &); $CC -c pipe.c -o x.o; rm pipe.c",
        "mkfifo pipe.h; (echo '#define Y 1' > pipe.h &); echo '#include \"pipe.h\"' > p.c; $CC -c p.c -o x.o; rm pipe.h",
        "mkfifo out.o; (cat out.o | wc -c | tr -d ' ' >size &); $CC -c x.c -o out.o; rm out.o; sleep 0.2; cat size",
        "$CC -x c -c /dev/null -o x.o",
        "$CC -c x.c -o /dev/null",
        "$CC -c x.c -MD -MF /dev/null -o x.o",
        "$CC -include /dev/null -c x.c",
        "$CC -c d.c",
        "$CC -c circle.c",
        "$CC -c broken.c",
        "$CC -x c -c . -o x.o",
        "$CC -c x.c -o d.c",
        "cp x.c y.c; $CC -c y.c -o y.c; cat y.c | wc -c",
        "cp x.h y.h; $CC -include y.h -c x.c -o y.h; cat y.h | wc -c",
        "cp x.c y.c; $CC -MD -MF y.c -c y.c -o x.o",
        "mkdir closed; chmod 555 closed; $CC -c x.c -o closed/x.o; $CC -c x.c -MD -MF closed/x.d; rmdir closed",
        "mkdir gone; cd gone; rmdir ../gone; $CC -c ../x.c -o x.o; $CC -c $OLDPWD/x.c -o $OLDPWD/x.o",
        "exec <&-; $CC -c x.c",
        "exec >&-; $CC -Wall -c x.c",
        "exec 2>&-; $CC -Wall -c x.c",
        "exec <&- >&- 2>&-; $CC -Wall -c x.c",
        "$CC -c x.c >/dev/full",
        "echo 'int y = no;' > e.c; $CC -c e.c 2>/dev/full",
    ] {
        odd.same(line);
    }
}

#[test]
fn headers_that_include_each_other_and_crowds_of_them() {
    let odd = Odd::new();
    odd.0.write("p/guarded.h", "#ifndef G\n#define G\n#include \"other.h\"\n#endif\n");
    odd.0.write("p/other.h", "#pragma once\n#include \"guarded.h\"\nint other;\n");
    odd.0.write("p/itself.h", "int again;\n#include \"itself.h\"\n");
    odd.0.write("p/a/one.h", "#include \"../b/two.h\"\n");
    odd.0.write("p/b/two.h", "#include \"../a/one.h\"\n");
    odd.0.write("p/counted.h", "#ifndef N\n#define N 1\n#include __FILE__\n#endif\n#include_next <counted.h>\n");
    for (name, header) in
        [("1.c", "guarded.h"), ("2.c", "itself.h"), ("3.c", "a/one.h"), ("4.c", "counted.h"), ("5.c", "5.c")]
    {
        odd.0.write(&format!("p/{name}"), &format!("#include \"{header}\"\nint x;\n"));
        odd.same(&format!("$CC -g -MD -c {name} -o x.o"));
    }
    let crowd = odd.0.path("p/crowd");
    fs::create_dir(&crowd).unwrap();
    for n in 0..100_000 {
        fs::write(crowd.join(format!("h{n}.h")), if n % 2 == 0 { String::new() } else { format!("#define H{n}\n") })
            .unwrap();
    }
    odd.0.write("many.c", &(0..2000).map(|n| format!("#include <h{}.h>", n * 50)).collect::<Vec<_>>().join("\n"));
    let compile = |compiler: &str| {
        let mut compile = odd.0.command("sh");
        let object = odd.0.path("many.o");
        let _ = fs::remove_file(&object);
        compile.args(["-c", &format!("{compiler} -g -MD -Ip/crowd -c many.c")]);
        let said = run(&mut compile);
        (said, fs::read(object).unwrap(), fs::read(odd.0.path("many.d")).unwrap())
    };
    let plain = compile("gcc");
    assert!(compile("buildbee gcc") == plain && compile("buildbee gcc") == plain);
}

#[test]
fn a_header_that_changes_while_it_is_read() {
    let odd = Odd::new();
    let text = |n: u32| format!("#define X 0x{n:08x}\n{}", "// as long as before\n".repeat(2000));
    let header = odd.0.path("p/x.h");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0x5a00_0000..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                // In place, and as an editor does it.
                let new = odd.0.path("p/new.h");
                let target = if n % 2 == 0 { &header } else { &new };
                fs::write(target, text(n % 4 + 0x5a00_0000)).unwrap();
                if n % 2 == 1 {
                    fs::rename(&new, &header).unwrap();
                }
            }
        });
        for _ in 0..40 {
            let _ = fs::remove_file(odd.0.path("p/x.o"));
            let said = run(odd.0.buildbee(&["gcc", "-c", "x.c"]).current_dir(odd.folder()));
            // A header that was read half is gcc's to complain of.
            if said.code == Some(0) {
                let object = fs::read(odd.0.path("p/x.o")).unwrap();
                let is_one = |n: u32| object.windows(4).any(|bytes| bytes == n.to_le_bytes());
                assert!((0x5a00_0000..0x5a00_0004).any(is_one), "an object of no version");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // What is kept of that time holds for what it was made of.
    for n in 0..4_u32 {
        fs::write(&header, text(0x5a00_0000 + n)).unwrap();
        for _ in 0..2 {
            let said = run(odd.0.buildbee(&["gcc", "-c", "x.c"]).current_dir(odd.folder()));
            assert_eq!(said.code, Some(0), "{said:?}");
            let object = fs::read(odd.0.path("p/x.o")).unwrap();
            assert!(object.windows(4).any(|bytes| bytes == (0x5a00_0000 + n).to_le_bytes()), "an old object for {n}");
        }
    }
}

#[test]
fn sources_that_come_and_go() {
    let odd = Odd::new();
    let stop = AtomicBool::new(false);
    let source = odd.0.path("p/x.c");
    let expected = {
        assert_eq!(run(odd.0.command("gcc").args(["-c", "x.c"]).current_dir(odd.folder())).code, Some(0));
        fs::read(odd.0.path("p/x.o")).unwrap()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&source, odd.0.path("p/away")).unwrap();
                fs::rename(odd.0.path("p/away"), &source).unwrap();
            }
        });
        for _ in 0..40 {
            let _ = fs::remove_file(odd.0.path("p/x.o"));
            let said = run(odd.0.buildbee(&["gcc", "-c", "x.c"]).current_dir(odd.folder()));
            match said.code {
                Some(0) => assert!(fs::read(odd.0.path("p/x.o")).unwrap() == expected),
                _ => assert!(said.err.contains("x.c") && !odd.0.path("p/x.o").exists(), "{said:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The folder of the outputs is full; what the cache keeps is elsewhere.
const ON_A_FULL_DISK: &str = r"
mkdir full && mount -t tmpfs -o size=64k none full
$CC -c x.c -o full/before.o; echo $?
head -c 1000000 /dev/zero > full/fill 2>/dev/null
$CC -c x.c -o full/x.o 2>said; echo $?; test -s said && echo said something
ls full; test -s full/x.o && echo an object
rm full/fill full/x.o; $CC -c x.c -o full/x.o; echo $?; cmp full/x.o full/before.o
umount full; rm -rf full said
";

#[test]
fn outputs_on_a_full_disk() {
    let odd = Odd::new();
    let shell = |compiler: &str| -> Command {
        let mut shell = odd.0.command("unshare");
        shell.args(["--user", "--map-root-user", "--mount", "bash", "-c", ON_A_FULL_DISK]);
        shell.env("CC", compiler).current_dir(odd.folder()).stdin(Stdio::null());
        shell
    };
    if run(&mut shell("true")).code.is_none() || run(odd.0.command("unshare").args(["--user", "true"])).code != Some(0)
    {
        return skipped("there are no user namespaces here");
    }
    let plain = run(&mut shell("gcc"));
    assert_eq!(plain.out.matches("said something").count(), 1, "the disk was not full: {plain:?}");
    // In the same mounts as its wrappers: a daemon of before would not see the disk.
    for _ in 0..2 {
        assert_eq!(run(&mut shell("buildbee gcc")), plain);
    }
    run(&mut odd.0.buildbee(&["stop"]));
    wait("the daemon has left", || odd.0.daemons().is_empty());
}

/// Devices of one's own, so that root can be careless with them.
#[test]
fn root_and_the_devices() {
    let odd = Odd::new();
    let script = "mkdir dev && mount -t tmpfs none dev && touch dev/null && mount --bind /dev/null dev/null && \
                  $CC -c x.c -o dev/null; echo $?; test -c dev/null && echo a device; umount dev/null; umount dev; rm -rf dev";
    let shell = |compiler: &str| {
        let mut shell = odd.0.command("unshare");
        shell.args(["--user", "--map-root-user", "--mount", "bash", "-c", script]);
        run(shell.env("CC", compiler).current_dir(odd.folder()))
    };
    let plain = shell("gcc");
    if plain.code != Some(0) {
        return skipped("there are no user namespaces here");
    }
    assert_eq!(shell("buildbee gcc"), plain);
    assert!(Path::new("/dev/null").metadata().unwrap().permissions().mode() & 0o222 != 0);
}

#[test]
fn a_folder_that_may_not_be_read_hides_what_is_in_it() {
    let Some(place) = Place::ordinary() else { return };
    let odd = Odd::at(place);
    odd.0.write("p/closed/x.h", "#define X 5\n");
    for mode in ["000", "111", "444", "755"] {
        odd.same(&format!("chmod {mode} closed; $CC -Iclosed -iquote closed -MD -c x.c; chmod 755 closed"));
    }
}
