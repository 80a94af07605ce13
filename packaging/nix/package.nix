# All programs, built as `make release` builds them: the wrapper is static, the recorder needs no library.
{
  lib,
  stdenv,
  glibc,
  rustPlatform,
  cargo,
  rustc,
}:

stdenv.mkDerivation {
  pname = "buildbee";
  version = (lib.importTOML ../../Cargo.toml).workspace.package.version;

  src = lib.cleanSourceWith {
    src = ../..;
    filter = path: type: baseNameOf path != "target" && lib.cleanSourceFilter path type;
  };
  cargoDeps = rustPlatform.importCargoLock { lockFile = ../../Cargo.lock; };

  nativeBuildInputs = [
    cargo
    rustc
    rustPlatform.cargoSetupHook
  ];
  buildInputs = [ glibc.static ];

  postPatch = "patchShebangs packaging";
  buildPhase = ''
    runHook preBuild
    make release SHELL=${stdenv.shell}
    runHook postBuild
  '';
  installPhase = ''
    runHook preInstall
    packaging/install target/release "$out"
    runHook postInstall
  '';
  # They start whole farms, which need namespaces.
  doCheck = false;

  meta = {
    description = "Peer-to-peer compile farm and cache of an office's desktops";
    homepage = "https://github.com/buildbee/buildbee";
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = lib.platforms.linux;
    mainProgram = "buildbee";
  };
}
