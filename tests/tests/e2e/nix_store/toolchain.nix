# A closure of six store paths and a compiler that is a shell script, made of this machine's own gcc without a cache or a network; `bumped`
# is another wrapper over the same five.
let
  d = name: script: deps: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = "/usr/bin:/bin";
  } // deps);
  pe = "patchelf --set-interpreter $glibc/lib/ld-linux-x86-64.so.2 --set-rpath";
  L = "/usr/lib/x86_64-linux-gnu";
  P = "/usr/bin/x86_64-linux-gnu";
  wrapped = more: d "gcc-wrapper" ''
    mkdir -p $out/bin; I=$(dirname $(find $gcc -name stddef.h))
    printf '#!%s/bin/sh\nexport PATH=%s/bin\n' $sh $binutils > $out/bin/cc
    printf '[ -z "$NIX_LIST" ] || echo /nix/store/* >&2\n' >> $out/bin/cc
    printf 'exec %s/bin/gcc -B%s/bin/ -B%s/lib/ -nostdinc -isystem %s -isystem %s/include "$@" $NIX_CFLAGS_COMPILE\n' \
      $gcc $binutils $glibc $I $glibc >> $out/bin/cc
    chmod +x $out/bin/cc; ${more}
  '' { inherit glibc gcc binutils sh; };
  glibc = d "glibc" ''
    mkdir -p $out/lib $out/include
    for f in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 crt1.o crti.o crtn.o; do cp -L ${L}/$f $out/lib/; done
    ln -s libm.so.6 $out/lib/libm.so
    cat /var/lib/dpkg/info/libc6-dev:amd64.list /var/lib/dpkg/info/linux-libc-dev:amd64.list | grep '^/usr/include/.*\.h$' \
      | tar -C / -hcf - -P --transform 's,^/usr/include/x86_64-linux-gnu/,,;s,^/usr/include/,,' --no-recursion -T - | tar -C $out/include -xf -
  '' { };
  libs = d "gcc-host-libs" ''
    mkdir -p $out/lib
    for f in $(ldd ${P}-as ${P}-objcopy $(gcc -print-prog-name=cc1) | sed -n 's,.* => \(/[^ ]*\) .*,\1,p' | sort -u); do
      [ -e $glibc/lib/$(basename $f) ] || cp -Lf $f $out/lib/
    done
    chmod u+w $out/lib/*; for f in $out/lib/*; do patchelf --set-rpath $out/lib:$glibc/lib $f; done
  '' { inherit glibc; };
  sh = d "dash" ''
    mkdir -p $out/bin; cp -L /usr/bin/dash $out/bin/sh; chmod u+w $out/bin/sh; ${pe} $glibc/lib $out/bin/sh
  '' { inherit glibc; };
  binutils = d "binutils" ''
    mkdir -p $out/bin; for f in as objcopy; do cp -L ${P}-$f $out/bin/$f; done
    chmod u+w $out/bin/*; for f in $out/bin/*; do ${pe} $libs/lib:$glibc/lib $f; done
  '' { inherit glibc libs; };
  gcc = d "gcc" ''
    G=$(dirname $(gcc -print-prog-name=cc1)); T=$out/''${G#/usr/}; mkdir -p $out/bin $T; cp -L /usr/bin/gcc $out/bin/gcc
    for f in cc1 liblto_plugin.so; do cp -L $G/$f $T/; done; cp -rL $G/include $T/
    chmod u+w $out/bin/* $T/*; patchelf --set-rpath $glibc/lib $T/liblto_plugin.so; for f in $out/bin/gcc $T/cc1; do ${pe} $libs/lib:$glibc/lib $f; done
  '' { inherit glibc libs; };
in {
  wrapper = wrapped "";
  # A path of 512 KiB that nothing makes smaller.
  bumped = wrapped ''
    mkdir $out/share; gzip -1nc $(find $gcc -name cc1) | head -c 524288 > $out/share/pad
  '';
}
