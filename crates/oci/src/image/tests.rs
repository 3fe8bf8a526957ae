use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use ::tar::{Builder, EntryType, Header};
use coracle_kernel::mount::Overlay;
use serde_json::json;

use super::*;

/// A member of a layer.
#[derive(Clone)]
struct Member {
    path: Vec<u8>,
    kind: EntryType,
    contents: Vec<u8>,
    link: Option<&'static str>,
    mode: u32,
    owner: (u64, u64),
    device: (u32, u32),
    extended: Vec<(&'static str, &'static [u8])>,
}

fn member(path: &str, kind: EntryType) -> Member {
    Member {
        path: path.as_bytes().to_vec(),
        kind,
        contents: Vec::new(),
        link: None,
        mode: 0o644,
        owner: (0, 0),
        device: (0, 0),
        extended: Vec::new(),
    }
}

fn file(path: &str, contents: &str) -> Member {
    Member {
        contents: contents.as_bytes().to_vec(),
        ..member(path, EntryType::Regular)
    }
}

fn directory(path: &str) -> Member {
    Member {
        mode: 0o755,
        ..member(path, EntryType::Directory)
    }
}

fn link(path: &str, target: &'static str) -> Member {
    Member {
        link: Some(target),
        ..member(path, EntryType::Symlink)
    }
}

fn hard_link(path: &str, target: &'static str) -> Member {
    Member {
        link: Some(target),
        ..member(path, EntryType::Link)
    }
}

/// Writes names into headers as they are: the `tar` crate would refuse the hostile ones.
fn header(path: &[u8], kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_ustar();
    assert!(path.len() <= 100);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mtime(1_000_000_000);
    header
}

fn tar(members: &[Member]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        let mut records = Vec::new();
        for (name, value) in &member.extended {
            let rest = [format!(" SCHILY.xattr.{name}=").as_bytes(), value, b"\n"].concat();
            let length = (1..)
                .find(|length: &usize| length.to_string().len() + rest.len() == *length)
                .unwrap();
            records.extend_from_slice(length.to_string().as_bytes());
            records.extend_from_slice(&rest);
        }
        if !records.is_empty() {
            let mut extension = header(b"pax", EntryType::XHeader, records.len());
            extension.set_cksum();
            builder.append(&extension, records.as_slice()).unwrap();
        }
        let mut header = header(&member.path, member.kind, member.contents.len());
        header.set_mode(member.mode);
        header.set_uid(member.owner.0);
        header.set_gid(member.owner.1);
        header.set_device_major(member.device.0).unwrap();
        header.set_device_minor(member.device.1).unwrap();
        if let Some(link) = member.link {
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, member.contents.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn configuration(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer::digest(layer)).collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["A=b"],
            "Entrypoint": ["/bin/app"],
            "Cmd": ["serve"],
            "User": "web",
            "WorkingDir": "/srv",
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [],
    });
    serde_json::to_vec(&config).unwrap()
}

fn files(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<Member> = files
        .iter()
        .map(|(path, contents)| Member {
            contents: contents.clone(),
            ..member(path, EntryType::Regular)
        })
        .collect();
    tar(&members)
}

/// What `docker save` writes.
fn docker_archive(tags: &[&str], layers: &[Vec<u8>]) -> Vec<u8> {
    let names: Vec<String> = (0..layers.len())
        .map(|index| format!("{index}/layer.tar"))
        .collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
    let mut all = vec![
        ("manifest.json", serde_json::to_vec(&manifest).unwrap()),
        ("config.json", configuration(layers)),
    ];
    all.extend(names.iter().map(String::as_str).zip(layers.iter().cloned()));
    files(&all)
}

/// An OCI layout with compressed layers: its files by path. A foreign platform comes first in the index.
fn layout(name: &str, layers: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut blob = |contents: Vec<u8>| {
        let digest = layer::digest(&contents);
        let size = contents.len();
        files.insert(format!("blobs/{}", digest.replace(':', "/")), contents);
        (digest, size)
    };
    let (config, config_size) = blob(configuration(layers));
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let (digest, size) = blob(gzip(layer));
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size})
        })
        .collect();
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let (manifest, manifest_size) = blob(serde_json::to_vec(&manifest).unwrap());
    let absent = format!("sha256:{}", "0".repeat(64));
    let index = json!({"schemaVersion": 2, "manifests": [
        {"digest": absent, "size": 1, "platform": {"architecture": "s390x", "os": "linux"}},
        {"digest": manifest, "size": manifest_size, "platform": {"architecture": architecture(), "os": "linux"}},
    ]});
    let (inner, inner_size) = blob(serde_json::to_vec(&index).unwrap());
    let annotations = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [{"digest": inner, "size": inner_size, "annotations": annotations}]});
    files.insert("index.json".to_owned(), serde_json::to_vec(&index).unwrap());
    files.insert(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    );
    files
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path().join("images")).unwrap();
    (directory, store)
}

fn layers_present(store: &ImageStore) -> usize {
    fs::read_dir(store.root.join("layers")).unwrap().count()
}

fn scratch_is_empty(store: &ImageStore) -> bool {
    fs::read_dir(store.scratch()).unwrap().next().is_none()
}

/// Shows an image's files as a container sees them.
fn view(image: &Image, look: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let (upper, work) = (directory.path().join("upper"), directory.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    fs::set_permissions(
        &upper,
        fs::metadata(image.layers.last().unwrap()).unwrap().permissions(),
    )
    .unwrap();
    let overlay = Overlay {
        lower: &image.layers,
        upper: &upper,
        work: &work,
        volatile: true,
    }
    .mount()
    .unwrap();
    // A mount that is attached nowhere can be walked all the same.
    look(Path::new(&format!(
        "/proc/self/fd/{}/",
        std::os::fd::AsRawFd::as_raw_fd(&overlay)
    )));
}

fn load(layers: &[Vec<Member>]) -> (tempfile::TempDir, ImageStore, Result<Image>) {
    let (directory, store) = store();
    let layers: Vec<Vec<u8>> = layers.iter().map(|members| tar(members)).collect();
    let loaded = store.load_stream(docker_archive(&["test"], &layers).as_slice());
    let image = loaded.map(|names| store.resolve(&names[0]).unwrap().unwrap());
    (directory, store, image)
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| format!("({error})"))
}

#[test]
fn docker_archives_load_and_layers_are_shared() {
    let (_directory, store) = store();
    let base = tar(&[directory("etc"), file("etc/base", "base")]);
    let (one, two) = (tar(&[file("one", "1")]), tar(&[file("two", "2")]));
    let names = store
        .load_stream(docker_archive(&["a/one:v1", "one:v2"], &[base.clone(), one]).as_slice())
        .unwrap();
    assert_eq!(names, ["docker.io/a/one:v1", "docker.io/library/one:v2"]);
    store
        .load_stream(gzip(&docker_archive(&["two"], &[base, two])).as_slice())
        .unwrap();
    assert_eq!(layers_present(&store), 3);

    let image = store.resolve("a/one:v1").unwrap().unwrap();
    assert_eq!(store.resolve("one:v2").unwrap().unwrap(), image);
    assert_eq!(store.resolve(&image.id).unwrap().unwrap(), image);
    assert_eq!(store.resolve("one").unwrap(), None);
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(image.config.entrypoint, ["/bin/app"]);
    assert_eq!(image.config.cmd, ["serve"]);
    assert_eq!(image.config.env, ["A=b"]);
    assert_eq!(image.config.exposed_ports, ["80/tcp"]);
    assert_eq!(
        (image.config.user.as_str(), image.config.working_dir.as_str()),
        ("web", "/srv")
    );
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGQUIT"));
    view(&image, |root| {
        assert_eq!(
            (read(root, "etc/base"), read(root, "one")),
            ("base".into(), "1".into())
        )
    });

    // Another process, or the same after a restart, sees the same.
    let other = ImageStore::open(store.root.as_path()).unwrap();
    assert_eq!(other.resolve("a/one:v1").unwrap().unwrap(), image);
    other.remove("a/one:v1").unwrap();
    assert!(store.resolve("a/one:v1").unwrap().is_none());
    assert_eq!(layers_present(&store), 3, "another name is left");
    other.remove("one:v2").unwrap();
    assert_eq!(layers_present(&store), 2, "the base is needed by the other image");
    assert!(matches!(store.remove("one:v2"), Err(Error::ImageNotFound(_))));
    store.remove("two").unwrap();
    assert_eq!(layers_present(&store), 0);
    assert!(scratch_is_empty(&store));
}

#[test]
fn oci_layouts_load_from_archives_and_directories() {
    let layers = [tar(&[file("a", "A")]), tar(&[file("b", "B")])];
    let files_of = layout("example.com/app:v1", &layers);
    let members: Vec<(&str, Vec<u8>)> = files_of
        .iter()
        .map(|(path, text)| (path.as_str(), text.clone()))
        .collect();
    let (directory, store) = store();
    assert_eq!(
        store.load_stream(files(&members).as_slice()).unwrap(),
        ["example.com/app:v1"]
    );
    let image = store.resolve("example.com/app:v1").unwrap().unwrap();
    assert_eq!(image.digests.len(), 1);
    assert!(
        image.digests[0].starts_with("example.com/app@sha256:"),
        "{:?}",
        image.digests
    );
    assert_eq!(store.resolve(&image.digests[0]).unwrap().unwrap(), image);
    view(&image, |root| {
        assert_eq!((read(root, "a"), read(root, "b")), ("A".into(), "B".into()))
    });

    let place = directory.path().join("layout");
    for (path, contents) in layout("v1", &layers) {
        let path = place.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    // A tag alone names nothing: the image is known by its id.
    assert_eq!(
        store.load_archive(&place).unwrap(),
        std::slice::from_ref(&image.id)
    );
    store.remove(&image.id).unwrap();
    assert_eq!(layers_present(&store), 0);
    assert_eq!(
        store.load_archive(&place).unwrap(),
        std::slice::from_ref(&image.id)
    );
    assert!(store.resolve(&image.id).unwrap().is_some());
}

#[test]
fn layers_that_containers_use_stay() {
    let (_directory, store, image) = load(&[vec![file("a", "A")]]);
    let image = image.unwrap();
    let uses = store.uses(Path::new("/runtime"));
    uses.hold("container", &image.layers).unwrap();
    store.uses(Path::new("/other")).retain(&BTreeSet::new()).unwrap();
    store.remove("test").unwrap();
    assert_eq!(layers_present(&store), 1);
    uses.retain(&BTreeSet::from(["container".to_owned()])).unwrap();
    store.collect_garbage().unwrap();
    assert_eq!(layers_present(&store), 1);
    uses.release("container").unwrap();
    uses.release("container").unwrap();
    store.collect_garbage().unwrap();
    assert_eq!(layers_present(&store), 0);
    assert!(matches!(
        uses.hold("late", &image.layers),
        Err(Error::ImageNotFound(_))
    ));
}

#[test]
fn whiteouts_and_opaque_directories_hide_lower_layers_only() {
    let lower = vec![
        directory("d"),
        file("d/old", ""),
        directory("d/sub"),
        file("d/sub/old", ""),
        file("gone", ""),
        file("kept", ""),
        directory("gone-directory"),
        file("gone-directory/x", ""),
        directory("replaced"),
        file("replaced/x", ""),
    ];
    let upper = vec![
        file(".wh.gone", ""),
        file(".wh.gone-directory", ""),
        file(".wh.never-was", ""),
        directory("d/sub"),
        file("d/sub/new", "new"),
        file("d/first", ""),
        file("d/.wh..wh..opq", ""),
        file("d/second", ""),
        file("replaced", "now a file"),
        file(".wh..wh.plnk", ""),
    ];
    let (_directory, _store, image) = load(&[lower, upper]);
    view(&image.unwrap(), |root| {
        let list = |path: &str| {
            let mut names: Vec<String> = fs::read_dir(root.join(path))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(list(""), ["d", "kept", "replaced"]);
        assert_eq!(list("d"), ["first", "second", "sub"]);
        assert_eq!(list("d/sub"), ["new"]);
        assert_eq!(read(root, "replaced"), "now a file");
    });
}

#[test]
fn paths_follow_links_of_lower_layers() {
    let lower = vec![
        directory("usr/lib"),
        file("usr/lib/a", "a"),
        link("lib", "usr/lib"),
        link("absolute", "/usr/lib"),
    ];
    let upper = vec![
        file("lib/b", "b"),
        file("absolute/c", "c"),
        hard_link("lib/d", "lib/a"),
    ];
    let (_directory, _store, image) = load(&[lower, upper]);
    view(&image.unwrap(), |root| {
        assert!(root.join("lib").is_symlink());
        for (name, text) in [("a", "a"), ("b", "b"), ("c", "c"), ("d", "a")] {
            assert_eq!(read(root, &format!("usr/lib/{name}")), text);
        }
    });
}

#[test]
fn attributes_arrive_whole() {
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let members = vec![
        Member {
            mode: 0o711,
            owner: (7, 8),
            ..directory("./")
        },
        Member {
            mode: 0o4755,
            owner: (1000, 1001),
            ..file("suid", "x")
        },
        Member {
            extended: vec![("security.capability", capability), ("user.note", b"n=\n1")],
            ..file("ping", "x")
        },
        Member {
            extended: vec![("trusted.overlay.opaque", b"y")],
            ..directory("d")
        },
        Member {
            mode: 0o1777,
            ..directory("tmp")
        },
        file("d/x", ""),
        hard_link("same", "suid"),
        member("fifo", EntryType::Fifo),
        Member {
            device: (1, 3),
            mode: 0o666,
            ..member("null", EntryType::Char)
        },
        link("link", "../../../etc/shadow"),
    ];
    let (_directory, store, image) = load(&[members]);
    let root = &image.unwrap().layers[0];
    assert!(scratch_is_empty(&store));
    let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    let mode = |path: &str| stat(path).mode() & 0o7777;
    assert_eq!((mode(""), stat("").uid(), stat("").gid()), (0o711, 7, 8));
    assert_eq!(
        (mode("suid"), stat("suid").uid(), stat("suid").gid()),
        (0o4755, 1000, 1001)
    );
    assert_eq!(mode("tmp"), 0o1777);
    assert_eq!(stat("same").ino(), stat("suid").ino());
    assert_eq!(stat("d").mtime(), 1_000_000_000);
    assert_eq!(stat("link").mtime(), 1_000_000_000);
    assert!(stat("fifo").file_type().is_fifo() && stat("null").file_type().is_char_device());
    assert_eq!(mode("null"), 0o666);
    let attribute = |path: &str, name: &str| {
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(root.join(path), name, &mut value).map_err(io::Error::from)?;
        Ok::<_, io::Error>(value[..length].to_vec())
    };
    assert_eq!(attribute("ping", "security.capability").unwrap(), capability);
    assert_eq!(attribute("ping", "user.note").unwrap(), b"n=\n1");
    assert!(attribute("d", "trusted.overlay.opaque").is_err());
}

#[test]
fn an_upper_layer_leaves_the_roots_attributes_alone() {
    let (_directory, _store, image) = load(&[
        vec![Member {
            mode: 0o711,
            ..directory("./")
        }],
        vec![file("a", "")],
    ]);
    view(&image.unwrap(), |root| {
        assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o711)
    });
}

#[test]
fn hostile_layers_reach_nothing_outside() {
    let deep = "a/".repeat(49);
    let deepest = format!("{}x", "b/".repeat(40));
    let cases: Vec<(&str, Vec<Member>)> = vec![
        ("leads out", vec![file("../escape", "")]),
        ("leads out", vec![file("a/../../escape", "")]),
        ("leads out", vec![hard_link("stolen", "../../../../etc/passwd")]),
        (
            "No such file",
            vec![hard_link("stolen", "/etc/hostname-that-the-image-lacks")],
        ),
        ("whiteout of nothing", vec![file("d/.wh...", "")]),
        ("whiteout of nothing", vec![file(".wh.", "")]),
        ("device 0:0", vec![member("hole", EntryType::Char)]),
        ("unknown kind", vec![member("what", EntryType::new(b'Z'))]),
        (
            "out of range",
            vec![Member {
                owner: (u64::MAX, 0),
                ..file("x", "")
            }],
        ),
    ];
    for (message, members) in cases {
        let (directory, store, image) = load(std::slice::from_ref(&members));
        let error = image.expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
        assert!(!directory.path().join("escape").exists() && !store.root.join("escape").exists());
        assert!(scratch_is_empty(&store), "{message} left something");
        assert!(store.list().unwrap().is_empty());
    }
    // What a link in the image names is looked for in the image.
    let secret = tempfile::NamedTempFile::new().unwrap();
    let outside = secret.path().to_str().unwrap().to_owned();
    let parent: &'static str = Box::leak(
        secret
            .path()
            .parent()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
            .into_boxed_str(),
    );
    let name = secret.path().file_name().unwrap().to_str().unwrap();
    let members = vec![
        link("out", parent),
        file(&format!("out/{name}"), "overwritten"),
        link("up", "../../../.."),
        file("up/tmp-file", "inside"),
        link("self", "self"),
    ];
    let (_directory, _store, image) = load(&[members]);
    let root = image.unwrap().layers[0].clone();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "");
    assert_eq!(read(&root, outside.trim_start_matches('/')), "overwritten");
    assert_eq!(read(&root, "tmp-file"), "inside");
    assert!(load(&[vec![link("self", "self"), file("self/x", "")]]).2.is_err());
    assert!(load(&[vec![directory(&deep), file(&deepest, "")]]).2.is_ok());
}

#[test]
fn endless_headers_are_cut_off() {
    let (_directory, store) = store();
    let mut long_name = header(b"././@LongLink", EntryType::GNULongName, 64 << 20);
    long_name.set_cksum();
    let mut layer = long_name.as_bytes().to_vec();
    layer.resize(512 + (64 << 20), b'a');
    let error = store
        .load_stream(docker_archive(&["long"], &[layer]).as_slice())
        .unwrap_err()
        .to_string();
    assert!(error.contains("headers are too long"), "{error}");
}

#[test]
fn contents_must_be_what_the_manifest_says() {
    let (directory, store) = store();
    let layers = [tar(&[file("a", "A")])];
    let other = tar(&[file("a", "other")]);
    let mut forged = layout("a:v1", &layers);
    let path = forged
        .keys()
        .find(|path| forged[*path].starts_with(&[0x1f, 0x8b]))
        .unwrap()
        .clone();
    forged.insert(path, gzip(&other));
    let members: Vec<(&str, Vec<u8>)> = forged
        .iter()
        .map(|(path, text)| (path.as_str(), text.clone()))
        .collect();
    let error = store
        .load_stream(files(&members).as_slice())
        .unwrap_err()
        .to_string();
    assert!(error.contains("has the digest"), "{error}");
    assert_eq!(layers_present(&store), 0);
    for broken in [
        &b"not an archive"[..],
        b"",
        &tar(&[file("unrelated", "")]),
        &layers[0],
    ] {
        assert!(matches!(store.load_stream(broken), Err(Error::InvalidImage(_))));
    }
    let missing = directory.path().join("missing.tar");
    assert!(matches!(store.load_archive(&missing), Err(Error::Io { .. })));
    assert!(scratch_is_empty(&store));
}

#[test]
fn names_that_are_not_text_survive() {
    let odd = Member {
        path: b"odd-\xff".to_vec(),
        ..file("", "x")
    };
    let (_directory, _store, image) = load(&[vec![odd]]);
    let root = image.unwrap().layers[0].clone();
    assert!(root.join(std::ffi::OsStr::from_bytes(b"odd-\xff")).exists());
}
