// What the pages use of three.js, as the one global object THREE.
export {
  BufferAttribute, BufferGeometry, Color, ColorManagement, DirectionalLight, DoubleSide, Group, HemisphereLight,
  LineBasicMaterial, LineSegments, LinearSRGBColorSpace, Matrix4, Mesh, MeshBasicMaterial, MeshLambertMaterial,
  PerspectiveCamera, Points, PointsMaterial, Scene, Texture, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
